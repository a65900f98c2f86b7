"""How the activation is computed: GELU in one pass over memory and in the form that PyTorch computes."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mixers.layers.device import device


def fastest(activation: Callable) -> Callable:
    """Returns what computes `activation` fastest on this backend and device."""
    if compiles_gelu(activation):
        from keras_mixers.layers.gelu_on_tensorflow import compiled_gelu

        return compiled_gelu
    on_jax = keras.backend.backend() == "jax"
    return gelu if activation is keras.activations.gelu and on_jax else activation


def compiles_gelu(activation: Callable) -> bool:
    """Whether `activation` is a GELU that XLA compiles by itself: on TensorFlow, on a CPU."""
    return activation is keras.activations.gelu and keras.backend.backend() == "tensorflow" and device() == "cpu"


def gelu(x: Any) -> Any:
    """`x / 2 * (1 + erf(x / sqrt(2)))`: Keras's on JAX is x / 2 * erfc(-x / sqrt(2)), which XLA takes for longer."""
    half, slope = (ops.cast(value, x.dtype) for value in (0.5, 0.5**0.5))
    return half * x * (1 + ops.erf(slope * x))
