"""What TensorFlow computes differently: GELU, norms, gradients of kernels and of biases, clipping."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_mixers.backends import contract

__all__ = [
    "activate",
    "add_bias",
    "batch_norm",
    "clip_whole_batch",
    "compiled",
    "depthwise_native",
    "device",
    "gpu_name",
    "keep_memory",
    "layer_norm",
    "patch_conv",
    "peak_memory",
    "post_norm",
    "value_and_gradients",
    "xla_is_fast",
]


def device() -> str:
    found = (kind.lower() for kind in ("GPU", "TPU") if tf.config.list_logical_devices(kind))
    return contract.assumed_device() or next(found, "cpu")


def gpu_name() -> str:
    if (kind := device()) != "gpu":
        return "" if kind == "cpu" else kind
    gpu = tf.config.list_physical_devices("GPU")[0]
    return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")


def peak_memory() -> int:
    if device() != "gpu":
        return contract.peak_memory()
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def keep_memory() -> bool:
    """With oneDNN, which is on by default where a CPU has AVX512-VNNI, TensorFlow keeps its memory itself."""
    # TensorFlow has no public way to ask whether it uses oneDNN, or has started.
    from tensorflow.python.eager import context
    from tensorflow.python.util import _pywrap_util_port

    if _pywrap_util_port.IsMklEnabled():
        return contract.keep_memory()
    started = context.context()._initialized
    accelerators = [found for found in tf.config.get_visible_devices() if found.device_type != "CPU"]
    return contract.keep_memory_of_threads("TensorFlow", started, device() == "cpu" if started else not accelerators)


def xla_is_fast() -> bool:
    """On a CPU, XLA's depthwise convolutions take five times as long as TensorFlow's own, products twice as long."""
    return device() != "cpu"


def compiled(function: Callable) -> Callable:
    return tf.function(function)


def value_and_gradients(function: Callable, inputs: Sequence[Any], upstream: Any = 1.0) -> tuple[Any, list[Any]]:
    inputs = [tf.convert_to_tensor(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return value, tape.gradient(value, inputs, tf.cast(upstream, value.dtype))


def _wide(x):
    """Half precision is computed in float32, which costs no memory traffic inside a loop that XLA fuses."""
    return x if x.dtype == tf.float64 else tf.cast(x, "float32")


# Biases: on CPUs TensorFlow sums their gradients in the precision of the feature maps. In bfloat16 a sum stops growing
# at 256 times its summands; those before a norm, which all but cancel, were off by up to 18 times their size.


@tf.custom_gradient
def with_bias(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Adds a bias to the last axis."""
    return tf.nn.bias_add(x, bias), lambda gradient: (gradient, sum_over_positions(gradient))


def sum_over_positions(x: tf.Tensor) -> tf.Tensor:
    """Sums over all axes but the last, as a product with ones, which adds in float32 and takes half the time."""
    x = tf.reshape(x, (-1, x.shape[-1]))
    return tf.matmul(tf.ones((1, tf.shape(x)[0]), x.dtype), x)[0]


def add_bias(x: Any, bias: Any, data_format: str) -> Any:
    if data_format == "channels_first" or device() != "cpu":
        return contract.add_bias(x, bias, data_format)
    return with_bias(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))


def patch_conv(x: Any, kernel: Any, bias: Any, stride: Sequence[int], padding: str, data_format: str) -> Any:
    """On CPUs TensorFlow convolves channels-last images; only oneDNN takes others, in bfloat16 with AVX512 alone."""
    if data_format == "channels_last" or device() != "cpu":
        return contract.patch_conv(x, kernel, bias, stride, padding, data_format)
    y = contract.patch_conv(tf.transpose(x, (0, 2, 3, 1)), kernel, bias, stride, padding, "channels_last")
    return tf.transpose(y, (0, 3, 1, 2))


# Depthwise convolutions: on CPUs their gradients took most of a training step.

# The gradient for a kernel is faster as products of matrices of up to so many positions, and so many per number of the
# kernel.
MOST_POSITIONS, POSITIONS_PER_TAP = 256, {"bfloat16": 11, "float32": 6}


def depthwise_native(x: Any, kernel: Any, data_format: str, bias: Any = None) -> Any:
    if data_format == "channels_first" or device() != "cpu":
        return contract.depthwise_native(x, kernel, data_format, bias)

    def convolve(x, kernel):
        y = depthwise_on_cpu(x, kernel)
        return y if bias is None else add_bias(y, bias, data_format)  # next to the convolution, which oneDNN adds it in

    return contract.with_rows_as_images(convolve, tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


@tf.custom_gradient
def depthwise_on_cpu(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Convolves channels-last feature maps; its gradients take a third to a half of the time of TensorFlow's own."""
    return _convolve(x, kernel), lambda gradient: (
        _gradient_for_maps(x, kernel, gradient),
        _gradient_for_kernel(x, kernel, gradient),
    )


_SAME = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def _convolve(x, kernel):
    return tf.nn.depthwise_conv2d(x, kernel, **_SAME)


def _gradient_for_maps(x, kernel, gradient):
    """In bfloat16, convolves the gradient with the kernel turned by 180 degrees, as TensorFlow's own is slow there."""
    rows, columns = kernel.shape[:2]
    if x.dtype == tf.bfloat16 and rows % 2 and columns % 2:
        return _convolve(gradient, kernel[::-1, ::-1])
    wide = tf.nn.depthwise_conv2d_backprop_input(tf.shape(x), _wide(kernel), _wide(gradient), **_SAME)
    return tf.cast(wide, x.dtype)


def _gradient_for_kernel(x, kernel, gradient):
    (rows, columns, *_), (height, width) = kernel.shape, x.shape[1:3]
    positions = math.inf if None in (height, width) else contract.band_height(height, width, rows) * width
    most = min(MOST_POSITIONS, POSITIONS_PER_TAP.get(x.dtype.name, 0) * rows * columns)
    if min(rows, columns) <= 3 or positions > most:
        wide = tf.nn.depthwise_conv2d_backprop_filter(_wide(x), kernel.shape, _wide(gradient), **_SAME)
    else:
        x, gradient = (tf.transpose(maps, (3, 0, 1, 2)) for maps in (x, gradient))
        multiply = functools.partial(tf.matmul, transpose_a=True)
        wide = contract.gradient_for_kernel(x, gradient, rows, columns, multiply)
    return tf.cast(wide, kernel.dtype)


# GELU: TensorFlow's own goes over the memory once for each of its five operations; XLA makes one loop of them, and
# another of the gradient. Exports hold the operations themselves: LiteRT's converter finds its GELU in them.


def _exact_gelu(x):
    """Below -5.3, 1 + erf is 2e-7 in XLA's float32; times a large x, the norm of a dead channel would enlarge it."""
    y = 0.5 * x * (1 + tf.math.erf(0.5**0.5 * x))
    return y if x.dtype == tf.float64 else tf.where(x < -5.3, tf.zeros_like(x), y)


@tf.function(jit_compile=True)
def _gelu(x):
    return tf.cast(_exact_gelu(_wide(x)), x.dtype)


@tf.function(jit_compile=True)
def _gelu_gradient(x, gradient):
    wide = _wide(x)
    slope = 0.5 * (1 + tf.math.erf(0.5**0.5 * wide)) + wide * tf.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return tf.cast(slope * tf.cast(gradient, wide.dtype), x.dtype)


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Returns `x / 2 * (1 + erf(x / sqrt(2)))`, compiled by XLA."""
    return _gelu(x), lambda gradient: _gelu_gradient(x, gradient)


@tf.function(jit_compile=True)
def _gelu_norm_and_residual(x, scale, shift, residual):
    """Returns `scale * gelu(x) + shift + residual` in one pass: a GELU, a batch norm in inference and a sum."""
    z = tf.cast(scale * _exact_gelu(_wide(x)) + shift, x.dtype)
    return z if residual is None else z + residual


def post_norm(
    x: Any, activation: Callable, norm: keras.layers.Layer | None, training: bool | None, residual: Any = None
) -> Any:
    if activation is keras.activations.gelu and device() == "cpu":
        if contract.is_scale_and_shift(norm, training):
            scale = ops.multiply(norm.gamma, ops.rsqrt(ops.add(norm.moving_variance, norm.epsilon)))
            shift = ops.subtract(norm.beta, ops.multiply(norm.moving_mean, scale))
            return _gelu_norm_and_residual(x, scale, shift, residual)
        activation = gelu
    return contract.post_norm(x, activation, norm, training, residual)


def activate(x: Any, activation: Callable) -> Any:
    return gelu(x) if activation is keras.activations.gelu and device() == "cpu" else activation(x)


# Layer norm: likewise, but for the sums over positions in its gradient, which XLA computes slowly.


@tf.function(jit_compile=True)
def _layer_norm(x, gamma, beta, epsilon):
    wide = _wide(x)
    mean = tf.reduce_mean(wide, -1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(wide - mean), -1, keepdims=True) + epsilon)
    y = (wide - mean) * inverse * tf.cast(gamma, wide.dtype) + tf.cast(beta, wide.dtype)
    return tf.cast(y, x.dtype), mean, inverse


@tf.function(jit_compile=True)
def _layer_norm_gradient(x, mean, inverse, gamma, gradient):
    """Returns the gradient for x, and at each position that for gamma."""
    normalized = (_wide(x) - mean) * inverse
    wide = tf.cast(gradient, normalized.dtype)
    scaled = wide * tf.cast(gamma, normalized.dtype)
    along = tf.reduce_mean(scaled * normalized, -1, keepdims=True)
    for_x = inverse * (scaled - tf.reduce_mean(scaled, -1, keepdims=True) - normalized * along)
    return tf.cast(for_x, x.dtype), wide * normalized, wide


@tf.custom_gradient
def compiled_layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Computes `contract.layer_norm`, compiled by XLA."""
    y, mean, inverse = _layer_norm(x, gamma, beta, epsilon)

    def gradients(gradient):
        for_x, *at_positions = _layer_norm_gradient(x, mean, inverse, gamma, gradient)
        return for_x, *(tf.cast(sum_over_positions(each), gamma.dtype) for each in at_positions), None

    return y, gradients


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    if device() != "cpu":
        return contract.layer_norm(x, gamma, beta, epsilon)
    x, gamma, beta = map(tf.convert_to_tensor, (x, gamma, beta))
    return compiled_layer_norm(x, gamma, beta, tf.constant(epsilon, _wide(x).dtype))


def batch_norm(
    x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, axis: int, epsilon: float, training: bool
) -> tuple[Any, Any, Any]:
    """In one pass; the contract's means, differences and products go over the memory once each."""
    if axis != -1 or gamma.dtype != "float32":
        return contract.batch_norm(x, mean, variance, gamma, beta, axis, epsilon, training)
    if training and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        wide = tf.cast(x, "float32")
        mean, variance = ops.moments(wide, axes=(0, 1, 2), synchronized=True)
        return tf.cast(tf.nn.batch_normalization(wide, mean, variance, beta, gamma, epsilon), x.dtype), mean, variance
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=[] if training else mean,
        variance=[] if training else variance,
        epsilon=epsilon,
        is_training=training,
    )
    if not training:
        return y, mean, variance
    values = tf.cast(tf.size(x) // x.shape[-1], "float32")
    return y, batch_mean, batch_variance * ((values - 1) / values)  # TensorFlow's is the unbiased variance


def clip_whole_batch(clip: Callable[[list[Any]], list[Any]], gradients: list[Any]) -> list[Any]:
    """Keras would clip the gradient of each replica's part of the batch."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    context = tf.distribute.get_replica_context()
    if replicas == 1 or context is None:
        return clip(gradients)
    whole = clip(context.all_reduce("SUM", gradients))
    return [gradient / replicas for gradient in whole]  # what is applied is their sum
