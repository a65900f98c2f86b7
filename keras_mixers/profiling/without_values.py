"""Models that are only inspected need no values in their weights."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras

Result = TypeVar("Result")


def without_values(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Returns `function(*args, **kwargs)`, whose models get weights with shapes but no values.

    A network of 50 million parameters then takes a tenth of a second and no memory. Such a model can be profiled and
    summarised, not called, trained or saved.

    Example:
        >>> from keras_mixers import create_model
        >>> model = without_values(create_model, "convmixer_1536_20")
        >>> tuple(model.get_layer("head").kernel.shape)
        (1536, 1000)
    """

    def call() -> Result:
        with keras.StatelessScope(initialize_variables=False):
            return function(*args, **kwargs)

    # Keras queues variables without values per thread, and would initialise all of them at the end of the next such
    # scope: a thread of its own discards its queue.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(call).result()
