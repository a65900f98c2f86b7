"""How the activation is computed: GELU in one pass over memory and in the form that PyTorch computes."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mixers.layers.device import device


def fastest(activation: Callable) -> Callable:
    """Returns what computes `activation` fastest on this backend and device."""
    if activation is not keras.activations.gelu:
        return activation
    backend = keras.backend.backend()
    if backend == "jax":
        return gelu
    if backend == "tensorflow" and device() == "cpu":
        from keras_mixers.layers.gelu_on_tensorflow import compiled_gelu

        return compiled_gelu
    return activation


def gelu(x: Any) -> Any:
    """`x / 2 * (1 + erf(x / sqrt(2)))`: Keras's on JAX is x / 2 * erfc(-x / sqrt(2)), which XLA takes for longer."""
    half, slope = (ops.cast(value, x.dtype) for value in (0.5, 0.5**0.5))
    return half * x * (1 + ops.erf(slope * x))
