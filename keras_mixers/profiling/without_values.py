"""Models that are only looked at need no values in their weights."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras

Result = TypeVar("Result")


def without_values(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Calls `function` so that the models it makes have weights with shapes but no values.

    A network of 50 million parameters then takes a tenth of a second and no memory. Such a model can be profiled and
    summarised, not called, trained or saved.

    Args:
        function: makes models.
        *args: what it is called with.
        **kwargs: what it is called with, by name.

    Returns:
        What `function` returns.

    Example:
        >>> from keras_mixers import create_model
        >>> model = without_values(create_model, "convmixer_1536_20")
        >>> tuple(model.get_layer("head").kernel.shape)
        (1536, 1000)
    """

    def call() -> Result:
        with keras.StatelessScope(initialize_variables=False):
            return function(*args, **kwargs)

    # Keras keeps a list of the variables without values, one list a thread, and would give all of them values at the
    # end of the next such scope: the thread takes its list with it.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(call).result()
