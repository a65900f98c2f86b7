"""What JAX computes differently: depthwise convolutions, GELU, and on GPUs the batch norm."""

import functools
import glob
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
from jax import lax
from jax import numpy as jnp
from keras import ops

from keras_mixers.backends import contract

__all__ = [
    "FASTEST_DEPTHWISE",
    "FAST_BFLOAT16_ON_CPU",
    "SHIFTED_UP_TO",
    "activate",
    "batch_norm",
    "compiled",
    "depthwise_shifted",
    "device",
    "gpu_name",
    "keep_memory",
    "peak_memory",
    "pointwise_conv",
    "post_norm",
    "spread",
    "token_dense",
    "value_and_gradients",
    "wait_for",
]

FASTEST_DEPTHWISE = {"cpu": "shifted"}
# Estimated, as no GPU was there: with 1 x 5 and 5 x 1 a network's inference has a third less traffic, which
# docs/scripts/gpu_compile.py counts; of 25 products per number the arithmetic should take longer than what they save.
SHIFTED_UP_TO = {"gpu": 9}
FAST_BFLOAT16_ON_CPU = False


def device() -> str:
    return contract.assumed_device() or jax.default_backend()


def gpu_name() -> str:
    return "" if device() == "cpu" else jax.local_devices()[0].device_kind


def peak_memory() -> int:
    statistics = None if device() == "cpu" else jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else contract.peak_memory()


def keep_memory() -> bool:
    from jax._src import xla_bridge  # JAX has no public way to ask whether it has started

    started = xla_bridge.backends_are_initialized()
    return contract.keep_memory_of_threads("JAX", started, device() == "cpu" if started else not _has_accelerator())


def _has_accelerator() -> bool:
    """Whether JAX will compute on an accelerator, as far as one can tell without starting it."""
    if jax.config.jax_platforms:
        return not jax.config.jax_platforms.startswith("cpu")
    return any(glob.glob(device) for device in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*"))


def wait_for(variables: Sequence[keras.Variable]) -> None:
    jax.block_until_ready([variable.value for variable in variables])


def compiled(function: Callable) -> Callable:
    return jax.jit(function)


def value_and_gradients(function: Callable, inputs: Sequence[Any], upstream: Any = 1.0) -> tuple[Any, list[Any]]:
    def both(inputs, upstream):
        value, pull_back = jax.vjp(function, *inputs)
        return value, list(pull_back(jnp.asarray(upstream, value.dtype)))

    return jax.jit(both)([jnp.asarray(value) for value in inputs], upstream)


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """`x / 2 * (1 + erf(x / sqrt(2)))`: Keras's on JAX is x / 2 * erfc(-x / sqrt(2)), which takes XLA longer.

    On GPUs, XLA computes it anew for each of its readers if that is in float32 and without a condition, and else stores
    it for them. The slope is in the dtype of x: in float32, XLA would store gradients in it.
    """
    wide = x.astype(jnp.promote_types(x.dtype, "float32"))
    return (0.5 * wide * _one_plus_erf(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_slope(primals, tangents):
    (x,), (tangent,) = primals, tangents
    density = jnp.exp(-0.5 * x * x) * (2 * math.pi) ** -0.5
    return gelu(x), (0.5 * _one_plus_erf(x) + x * density) * tangent


def _one_plus_erf(x):
    """On CPUs it can be 2e-7 below -5.3 in float32, where XLA's erf for GPUs, and that of float64, is -1.

    Times a large x, the norm of a dead channel would enlarge it.
    """
    y = 1 + lax.erf(0.5**0.5 * x)
    return y if x.dtype == "float64" or device() == "gpu" else jnp.where(x < -5.3, jnp.zeros_like(y), y)


def activate(x: Any, activation: Callable) -> Any:
    return gelu(x) if activation is keras.activations.gelu else activation(x)


def post_norm(
    x: Any, activation: Callable, norm: keras.layers.Layer | None, training: bool | None, residual: Any = None
) -> Any:
    activation = gelu if activation is keras.activations.gelu else activation
    return contract.post_norm(x, activation, norm, training, residual)


def pointwise_conv(x: Any, kernel: Any, bias: Any, data_format: str) -> Any:
    """Adds the bias to images: for one of a matrix, XLA on GPUs sums the gradient in a pass over memory of its own."""
    if data_format == "channels_first":
        return contract.pointwise_conv(x, kernel, bias, data_format)
    *positions, channels = x.shape
    y = ops.matmul(ops.reshape(x, (-1, channels)), kernel)
    return contract.add_bias(ops.reshape(y, (*positions, kernel.shape[-1])), bias, data_format)


def token_dense(x: Any, kernel: Any, bias: Any) -> Any:
    """With a kernel per image on CPUs: for the gradient of one that they share, XLA would transpose all of `x`."""
    if device() != "cpu":
        return contract.token_dense(x, kernel, bias)
    x, kernel, bias = map(ops.convert_to_tensor, (x, kernel, bias))
    kernels = jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape))
    y = lax.dot_general(kernels, x, (((1,), (1,)), ((0,), (0,))))
    return y + spread(bias[:, None], y)


def spread(values: Any, x: Any) -> Any:
    """Broadcasts by way of float32, so that the gradient is summed in it; in bfloat16 a sum stops growing at 256."""
    values = ops.convert_to_tensor(values)
    if jnp.finfo(values.dtype).bits > 16:
        return values
    return jnp.broadcast_to(values.astype("float32"), x.shape).astype(values.dtype)


def batch_norm(
    x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, axis: int, epsilon: float, training: bool
) -> tuple[Any, Any, Any]:
    if device() != "gpu" or not training:
        return contract.batch_norm(x, mean, variance, gamma, beta, axis, epsilon, training)
    mean, gamma, beta = (
        ops.cast(value, keras.backend.result_type(x.dtype, "float32")) for value in (mean, gamma, beta)
    )
    return normalize_by_batch(x, lax.stop_gradient(mean), gamma, beta, axis % x.ndim, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_by_batch(
    x: jax.Array, near: jax.Array, gamma: jax.Array, beta: jax.Array, axis: int, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes `contract.batch_norm` in training, and its gradients, each with one pass over memory for its sums.

    The contract takes two: the mean has to be there before the squared distances from it are summed. Here the distances
    are those from `near`, a guess of the mean, and the squares of both means are subtracted:
    `variance = E[(x - near)^2] - (mean - near)^2`. In float32 this is as exact where the guess is within a standard
    deviation of the mean, and keeps three digits at ten. The moving mean is near, and where training begins it is 0,
    from which an activation's outputs are not far.

    Args:
        x: feature maps of rank 4.
        near: a number near the mean of each channel, in the dtype in which sums are computed.
        gamma: scale of each channel.
        beta: offset of each channel.
        axis: that of the channels, from 0 on.
        epsilon: a small number that is added to the variance.
    """
    return _normalize(x, near, gamma, beta, axis, epsilon)[0]


def _normalize(x, near, gamma, beta, axis, epsilon):
    wide, others = _per_channel(axis)
    distance = x.astype(near.dtype) - wide(near)
    total, squares = _sums(distance, distance * distance, others)
    count = x.size // x.shape[axis]
    mean = near + total / count
    variance = jnp.maximum(squares / count - (total / count) ** 2, 0)
    scale = gamma * lax.rsqrt(variance + epsilon)
    y = x.astype(near.dtype) * wide(scale) + wide(beta - mean * scale)
    return (y.astype(x.dtype), mean, variance), (x, gamma, mean, variance)


def _normalize_backward(axis, epsilon, saved, gradients):
    x, gamma, mean, variance = saved
    for_y, for_mean, for_variance = gradients
    wide, others = _per_channel(axis)
    for_y, distance = for_y.astype(mean.dtype), x.astype(mean.dtype) - wide(mean)
    for_beta, product = _sums(for_y, for_y * distance, others)
    inverse = lax.rsqrt(variance + epsilon)
    scale, count = gamma * inverse, x.size // x.shape[axis]
    constant = (for_mean - scale * for_beta) / count
    slope = (2 * for_variance - scale * inverse**2 * product) / count
    for_x = for_y * wide(scale) + distance * wide(slope) + wide(constant)
    return for_x.astype(x.dtype), jnp.zeros_like(mean), product * inverse, for_beta


normalize_by_batch.defvjp(_normalize, _normalize_backward)


def _per_channel(axis):
    """A function that spreads one number per channel over feature maps of rank 4, and the axes to sum over."""
    others = [other for other in range(4) if other != axis]
    return lambda values: jnp.expand_dims(values, others), others


def _sums(a, b, axes):
    """Sums both arrays in one pass over memory: two sums would be one only where XLA finds them alike."""
    zero = jnp.zeros((), a.dtype)
    return lax.reduce((a, b), (zero, zero), lambda one, other: (one[0] + other[0], one[1] + other[1]), axes)


def depthwise_shifted(x: Any, kernel: Any, data_format: str, bias: Any = None) -> Any:
    return contract.shifted(shifted_products, x, kernel, data_format, bias)


@jax.custom_vjp
def shifted_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise convolution of x (batch, height, width, channels), "same", with (rows, columns, channels).

    In mixed precision the products are summed in float32.
    """
    return _convolve(x, _same(kernel), kernel)


def _forward(x, kernel):
    return shifted_products(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    rows, columns, channels = kernel.shape
    # For the image it is the convolution of the gradient with the kernel turned around.
    turned = [(after, before) for before, after in _same(kernel)]
    for_x = _convolve(gradient, turned, kernel[::-1, ::-1])
    if device() == "gpu":
        for_x = lax.optimization_barrier(for_x)  # XLA would store it in the float32 in which a norm before reads it
        _, pull_back = jax.vjp(lambda kernel: contract.depthwise_native(x, kernel, "channels_last"), kernel[..., None])
        return for_x, pull_back(gradient)[0][..., 0]

    # For the kernel, each position of the image adds its gradient times its surroundings. XLA sums this in a loop three
    # times faster than it reduces the product of two images once for each number of the kernel.
    padded = _padded(x, _same(kernel))
    batch, height, width, _ = x.shape

    def add_position(position, total):
        i, j = position // width, position % width
        around = lax.dynamic_slice(padded, (0, i, j, 0), (batch, rows, columns, channels))
        here = lax.dynamic_slice(gradient, (0, i, j, 0), (batch, 1, 1, channels))
        return total + around.astype("float32") * here.astype("float32")

    total = lax.fori_loop(0, height * width, add_position, jnp.zeros((batch, rows, columns, channels), "float32"))
    return for_x, total.sum(0).astype(kernel.dtype)


shifted_products.defvjp(_forward, _backward)


def _same(kernel):
    """The zeros before and after height and width with which an image keeps its size."""
    return [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]


def _padded(x, padding):
    return jnp.pad(x, [(0, 0), *padding, (0, 0)])


def _convolve(x, padding, kernel):
    """Pads x and sums the products. On a GPU padding costs nothing, and a barrier keeps x apart from it."""
    if device() == "gpu":
        return _add_products(_padded(lax.optimization_barrier(x), padding), kernel)
    return _sum_of_products(_padded(x, padding), kernel)


def _sum_of_products(padded, kernel):
    """Sums the products of a padded image that lies in memory.

    XLA would otherwise fuse the padding and what comes before it, such as a GELU, into each of the products, and
    compute it once per product. The branches are identical on purpose: `cond` makes XLA materialise its operands, where
    on a CPU a barrier does not.
    """
    return lax.cond(kernel[0, 0, 0] > 0, _add_products, lambda *operands: _add_products(*operands), padded, kernel)


def _add_products(padded, kernel):
    height, width = (padded.shape[axis] - kernel.shape[axis - 1] + 1 for axis in (1, 2))
    total = 0.0
    for i in range(kernel.shape[0]):
        rows = lax.slice_in_dim(padded, i, i + height, axis=1)
        for j in range(kernel.shape[1]):
            shifted = lax.slice_in_dim(rows, j, j + width, axis=2)
            total = total + shifted.astype("float32") * kernel[i, j].astype("float32")
    return total.astype(padded.dtype)
