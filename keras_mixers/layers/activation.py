"""How the activation is computed: GELU in one pass over memory and in the form that PyTorch computes."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mixers.layers.device import device
from keras_mixers.layers.in_place import in_place


def fastest(activation: Callable) -> Callable:
    """Returns what computes `activation` fastest on this backend and device, and may overwrite what it is given."""
    if compiles_gelu(activation):
        from keras_mixers.layers.gelu_on_tensorflow import compiled_gelu

        return compiled_gelu
    by_backend = {"jax": gelu, "torch": _gelu_on_torch}
    return by_backend.get(keras.backend.backend(), activation) if activation is keras.activations.gelu else activation


def compiles_gelu(activation: Callable) -> bool:
    """Whether `activation` is a GELU that XLA compiles by itself: on TensorFlow, on a CPU."""
    return activation is keras.activations.gelu and keras.backend.backend() == "tensorflow" and device() == "cpu"


def gelu(x: Any) -> Any:
    """`x / 2 * (1 + erf(x / sqrt(2)))`: Keras's on JAX is x / 2 * erfc(-x / sqrt(2)), which XLA takes for longer."""
    half, slope = (ops.cast(value, x.dtype) for value in (0.5, 0.5**0.5))
    return half * x * (1 + ops.erf(slope * x))


def _gelu_on_torch(x: Any) -> Any:
    import torch

    return torch.ops.aten.gelu_(x) if in_place() else torch.nn.functional.gelu(x)
