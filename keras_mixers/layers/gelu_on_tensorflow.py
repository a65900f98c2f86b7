"""GELU for TensorFlow on CPUs, whose own goes over the memory once for each of its five operations.

XLA makes one loop of them, and another of the gradient. Exports hold the operations themselves: LiteRT's converter
finds its GELU in them.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def _wide(x):
    """Half precision is computed in float32: no pass over memory more, inside a loop."""
    return x if x.dtype == tf.float64 else tf.cast(x, "float32")


@tf.function(jit_compile=True)
def _gelu(x):
    wide = _wide(x)
    return tf.cast(0.5 * wide * (1 + tf.math.erf(0.5**0.5 * wide)), x.dtype)


@tf.function(jit_compile=True)
def _gelu_gradient(x, gradient):
    wide = _wide(x)
    slope = 0.5 * (1 + tf.math.erf(0.5**0.5 * wide)) + wide * tf.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return tf.cast(slope * tf.cast(gradient, wide.dtype), x.dtype)


@tf.custom_gradient
def compiled_gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Returns `x / 2 * (1 + erf(x / sqrt(2)))`."""
    return _gelu(x), lambda gradient: _gelu_gradient(x, gradient)


@tf.function(jit_compile=True)
def gelu_norm_and_residual(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, residual: tf.Tensor | None) -> tf.Tensor:
    """Returns `scale * gelu(x) + shift + residual`: a GELU, a batch norm in inference and a sum, in one pass."""
    wide = _wide(x)
    z = tf.cast(scale * (0.5 * wide * (1 + tf.math.erf(0.5**0.5 * wide))) + shift, x.dtype)
    return z if residual is None else z + residual
