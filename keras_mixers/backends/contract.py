"""The contract: what every backend computes, written in `keras.ops`.

These functions serve any backend or device that has nothing better, and tests compare the backends' own with them.
"""

import contextlib
import contextvars
import ctypes
import functools
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers import backends  # for what some of them replace and others call

__all__ = [
    "FASTEST_DEPTHWISE",
    "FAST_BFLOAT16_ON_CPU",
    "SHIFTED_UP_TO",
    "activate",
    "adamw",
    "add_bias",
    "add_branch",
    "assume_device",
    "batch_norm",
    "clip_whole_batch",
    "compiled",
    "depthwise_native",
    "depthwise_shifted",
    "device",
    "gpu_name",
    "join",
    "keep_memory",
    "layer_norm",
    "mix_spans",
    "patch_conv",
    "peak_memory",
    "pointwise_conv",
    "post_norm",
    "split",
    "spread",
    "token_dense",
    "value_and_gradients",
    "wait_for",
    "xla_is_fast",
]

Span = tuple[int, int]

# Device.

_assumed = contextvars.ContextVar("assumed_device", default=None)


@contextlib.contextmanager
def assume_device(kind: str) -> Iterator[None]:
    """Makes `device()` return `kind`: what is traced inside is meant for another machine.

    Example:
        >>> from keras_mixers import backends
        >>> with assume_device("gpu"):
        ...     backends.device()
        'gpu'
    """
    token = _assumed.set(kind)
    try:
        yield
    finally:
        _assumed.reset(token)


def assumed_device() -> str | None:
    """Returns the device that `assume_device` names, None outside of it."""
    return _assumed.get()


def device() -> str:
    """Returns the kind of device that the backend computes on: `"cpu"`, `"gpu"`, `"tpu"` or another that it names."""
    return assumed_device() or "cpu"


def gpu_name() -> str:
    """Returns the name of the accelerator that the backend computes on, "" on a CPU."""
    return "" if device() == "cpu" else device()


# Convolutions.


def add_bias(x: Any, bias: Any, data_format: str) -> Any:
    """Adds `bias`, one number per channel, to `x`.

    With channels first the bias is the first summand: Keras on TensorFlow treats a second summand as long as the last
    axis as a bias of channels last, and would add it along the width of an image as wide as there are channels. With
    channels last it is such a bias, which TensorFlow adds within the convolution.
    """
    if data_format == "channels_last":
        return ops.add(x, backends.spread(bias, x))
    return ops.add(backends.spread(ops.reshape(bias, (-1, 1, 1)), x), x)


def spread(values: Any, x: Any) -> Any:
    """Returns `values` to add to `x` or to multiply with it; the gradient for them, a sum, is summed in float32."""
    return values


def patch_conv(x: Any, kernel: Any, bias: Any, stride: Sequence[int], padding: str, data_format: str) -> Any:
    """Convolves images with a kernel (height, width, input channels, output channels)."""
    y = ops.conv(x, kernel, strides=list(stride), padding=padding, data_format=data_format)
    return backends.add_bias(y, bias, data_format)


# The faster of "native" and "shifted" per device; "native" for a device that is not listed. Measured by
# `python docs/scripts/depthwise.py` on two cores: float32, (64, 16, 16, 256), milliseconds alone and with
# both gradients.
#
#                      1 x 5         5 x 1         5 x 5         7 x 7
# jax, native          115.3 / 261   125.5 / 521   202.8 / 765   336.9 / 1744
# jax, shifted         11.5 / 30     5.7 / 28      16.5 / 46     31.4 / 82
# tensorflow, native   3.4 / 10      3.0 / 9       4.1 / 25      6.0 / 37
# tensorflow, shifted  15.8 / 164    15.7 / 166    64.6 / 802    146.4 / 1632
# torch, native        2.9 / 11      2.9 / 13      4.4 / 28      5.8 / 44
# torch, shifted       17.8 / 66     18.0 / 75     55.7 / 305    106.4 / 528
FASTEST_DEPTHWISE: dict[str, str] = {}

# The most numbers per kernel for which "shifted" is chosen on a device where the above says "native".
SHIFTED_UP_TO: dict[str, int] = {}


def depthwise_native(x: Any, kernel: Any, data_format: str, bias: Any = None) -> Any:
    """Convolves each channel with its own kernel (height, width, channels, 1), "same", by the backend's operation."""
    y = ops.depthwise_conv(x, kernel, padding="same", data_format=data_format)
    return y if bias is None else backends.add_bias(y, bias, data_format)


def with_rows_as_images(convolve: Callable[[Any, Any], Any], x: Any, kernel: Any) -> Any:
    """Returns `convolve(x, kernel)` of channels-last feature maps; for a kernel of one row, each row of x is an image.

    (batch, height, width, channels) is (batch * height, width, 1, channels) in memory. On CPUs, TensorFlow and PyTorch
    take a half to a fifth of the time for the gradient of a kernel that is a column.
    """
    rows, columns, channels, _ = kernel.shape
    if rows > 1:
        return convolve(x, kernel)
    shape = ops.shape(x)
    y = convolve(ops.reshape(x, (-1, shape[2], 1, channels)), ops.reshape(kernel, (columns, 1, channels, 1)))
    return ops.reshape(y, shape)


def band_height(height: int, width: int, rows: int) -> int:
    """Returns how many rows of a map, whose height they divide, `gradient_for_kernel` multiplies at once.

    Fewer rows take fewer products, but more copies, and matrices of less than about a hundred positions are slow.
    """
    fits = (band for band in range(max(rows // 2, 1), height) if height % band == 0 and band * width >= 96)
    return next(fits, height)


def gradient_for_kernel(x: Any, gradient: Any, rows: int, columns: int, multiply: Callable[[Any, Any], Any]) -> Any:
    """Returns the gradient (rows, columns, channels, 1) for a depthwise kernel, in float32.

    A product of matrices per channel gives the sums over the batch of input times gradient for all pairs of positions,
    of which those count that a number of the kernel joins. Most rows of a map are too far apart for that, so it is cut
    into bands: each is multiplied by itself, and the rows where two of them meet by one another.

    Args:
        x: the input, (channels, batch, height, width).
        gradient: that for the output, of the same shape.
        rows: of the kernel.
        columns: of the kernel.
        multiply: returns (channels, n, m), the products of (channels, k, n) transposed and (channels, k, m).
    """
    channels, _, height, width = x.shape
    band, up, down = band_height(height, width, rows), (rows - 1) // 2, rows // 2
    x, gradient = (ops.reshape(maps, (channels, -1, height // band, band, width)) for maps in (x, gradient))
    parts = [(x, gradient, range(band), range(band))]
    if band < height:
        at_the_end, after = range(band - down, band), range(band, band + down)
        parts.append((x[:, :, :-1, band - up :], gradient[:, :, 1:, :up], range(-up, 0), range(up)))
        parts.append((x[:, :, 1:, :down], gradient[:, :, :-1, band - down :], after, at_the_end))
    total = 0.0
    for inputs, outputs, *at_rows in parts:
        inputs, outputs = (ops.reshape(maps, (channels, -1, maps.shape[3] * width)) for maps in (inputs, outputs))
        sums = ops.reshape(multiply(inputs, outputs), (channels, -1))
        joined = ops.cast(joined_positions(*at_rows, width, rows, columns), sums.dtype)
        total += ops.cast(ops.matmul(sums, joined), "float32")
    return ops.reshape(ops.transpose(total), (rows, columns, channels, 1))


@functools.cache
def joined_positions(input_rows: range, output_rows: range, width: int, rows: int, columns: int) -> np.ndarray:
    """Returns whether each number of a kernel joins each pair (input position, output position): (pairs, numbers)."""
    at = input_rows, range(width), output_rows, range(width)
    row, column, output_row, output_column = np.meshgrid(*at, indexing="ij")
    down, across = row - output_row + (rows - 1) // 2, column - output_column + (columns - 1) // 2
    inside = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
    return np.where(inside, down * columns + across, -1).reshape(-1, 1) == np.arange(rows * columns)


def depthwise_shifted(x: Any, kernel: Any, data_format: str, bias: Any = None) -> Any:
    """Computes `depthwise_native` as a sum of shifted images, one for each number of the kernel."""
    return shifted(_shifted_products, x, kernel, data_format, bias)


def shifted(products: Callable[[Any, Any], Any], x: Any, kernel: Any, data_format: str, bias: Any) -> Any:
    """Calls `products` with channels-last images and a kernel (height, width, channels), and adds the bias."""
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    if data_format == "channels_first":
        y = ops.moveaxis(products(ops.moveaxis(x, 1, -1), kernel[..., 0]), -1, 1)
    else:
        y = products(x, kernel[..., 0])
    return y if bias is None else backends.add_bias(y, bias, data_format)


def _shifted_products(x: Any, kernel: Any) -> Any:
    (rows, columns), (height, width) = kernel.shape[:2], ops.shape(x)[1:3]
    padded = ops.pad(x, [(0, 0), ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2), (0, 0)])
    return sum(padded[:, i : i + height, j : j + width] * kernel[i, j] for i in range(rows) for j in range(columns))


def xla_is_fast() -> bool:
    """Returns whether XLA should compile a network of mixers on this device."""
    return True


# Whether bfloat16 is faster than float32 on a CPU that has instructions for it.
FAST_BFLOAT16_ON_CPU = True


def pointwise_conv(x: Any, kernel: Any, bias: Any, data_format: str) -> Any:
    """Multiplies the channels of `x` with a kernel (input channels, output channels): a 1 × 1 convolution."""
    if data_format == "channels_first":
        return backends.add_bias(ops.einsum("bihw,io->bohw", x, kernel), bias, data_format)
    # As one matrix: TensorFlow's gradient of a product with more axes takes three times as long.
    *positions, channels = ops.shape(x)
    y = backends.add_bias(ops.matmul(ops.reshape(x, (-1, channels)), kernel), bias, data_format)
    return ops.reshape(y, (*positions, kernel.shape[-1]))


def token_dense(x: Any, kernel: Any, bias: Any) -> Any:
    """Multiplies the tokens of `x` (batch, tokens, channels) with a kernel (tokens, units), for each channel alike."""
    # The bias comes first: behind the product, Keras on TensorFlow takes (units, 1) for a bias of as many channels.
    y = ops.matmul(ops.transpose(kernel), x)
    return ops.add(backends.spread(ops.expand_dims(bias, -1), y), y)


# Spans of channels.


def split(x: Any, positions: Sequence[int], axis: int) -> list[Any]:
    """Cuts `x` at `positions` with `ops.split`: slices become gathers on JAX, which LiteRT's converter rejects."""
    return list(ops.split(x, positions, axis=axis)) if positions else [x]


def join(parts: Sequence[Any], axis: int) -> Any:
    """Concatenates what `split` cut."""
    return ops.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def mix_spans(parts: dict[Span, Any], convolutions: dict[Span, Any], axis: int) -> Any:
    """Convolves some spans of the channels and joins them with the others.

    Args:
        parts: the feature maps of each span (start, stop), in order and without gaps.
        convolutions: the `PointwiseConvolution` of each span that is convolved.
        axis: that of the channels.
    """
    return join([convolutions[span](part) if span in convolutions else part for span, part in parts.items()], axis)


# Activation and norm.


def activate(x: Any, activation: Callable) -> Any:
    """Returns `activation(x)`, and may overwrite x."""
    return activation(x)


def batch_norm(
    x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, axis: int, epsilon: float, training: bool
) -> tuple[Any, Any, Any]:
    """Normalises each channel: `gamma * (x - mean) / sqrt(variance + epsilon) + beta`.

    Args:
        x: feature maps of rank 4.
        mean: mean of each channel; in training that of the batch takes its place.
        variance: variance of each channel; likewise.
        gamma: scale of each channel.
        beta: offset of each channel.
        axis: that of the channels.
        epsilon: a small number that is added to the variance.
        training: whether the batch's own statistics are used.

    Returns:
        The normalised feature maps, and the mean and the biased variance by which they were normalised.
    """
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    mean, variance, gamma, beta = (ops.cast(value, wide.dtype) for value in (mean, variance, gamma, beta))
    if training:
        mean, variance = ops.moments(wide, axes=[other for other in range(4) if other != axis % 4])
    y = ops.batch_normalization(wide, mean, variance, axis, offset=beta, scale=gamma, epsilon=epsilon)
    return ops.cast(y, x.dtype), mean, variance


def is_scale_and_shift(norm: keras.layers.Layer | None, training: bool | None) -> bool:
    """Returns whether `norm` is a batch norm in inference: `scale * x + shift`, in float32 along the last axis."""
    return (
        isinstance(norm, keras.layers.BatchNormalization)
        and norm.axis == -1
        and norm.variable_dtype == "float32"
        and not (training and norm.trainable)
    )


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Normalises each position over its channels: `gamma * (x - mean) / sqrt(variance + epsilon) + beta`.

    The channels are the last axis. Half precision is computed in float32.
    """
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    gamma, beta = (ops.cast(value, wide.dtype) for value in (gamma, beta))
    mean, variance = ops.moments(wide, axes=-1, keepdims=True)
    y = (wide - mean) * ops.multiply(ops.rsqrt(variance + epsilon), gamma) + beta
    return ops.cast(y, x.dtype)


def add_branch(x: Any, branch: Any, scale: Any = None) -> Any:
    """Computes `x + scale * branch`, where one number per channel scales it if any does, and may overwrite branch."""
    return ops.add(x, branch if scale is None else ops.multiply(branch, backends.spread(scale, branch)))


def post_norm(
    x: Any, activation: Callable, norm: keras.layers.Layer | None, training: bool | None, residual: Any = None
) -> Any:
    """Computes `norm(activation(x)) + residual`, and may overwrite x."""
    x = activate(x, activation)
    x = x if norm is None else norm(x, training=training)
    return x if residual is None else ops.add(x, residual)


# Functions as a whole.


def compiled(function: Callable) -> Callable:
    """Returns `function` as the backend runs it within a model, without gradients."""
    return function


def value_and_gradients(function: Callable, inputs: Sequence[Any], upstream: Any = 1.0) -> tuple[Any, list[Any]]:
    """Returns the value of `function(*inputs)` and the gradients of `sum(upstream * value)` for each input.

    Args:
        function: takes tensors and returns one.
        inputs: arrays or tensors of floats.
        upstream: of the shape of the value.

    Raises:
        NotImplementedError: if the backend has no gradients.

    Example:
        >>> from keras_mixers import backends
        >>> value, (gradient,) = backends.value_and_gradients(lambda x: x * x, [3.0])
        >>> float(value), float(gradient)
        (9.0, 6.0)
    """
    raise NotImplementedError(
        f"The backend {keras.backend.backend()!r} has no gradients; set KERAS_BACKEND to jax, tensorflow or torch."
    )


def wait_for(variables: Sequence[keras.Variable]) -> None:
    """Returns when everything that was begun is computed; `variables` are those of a model."""
    ops.convert_to_numpy(variables[-1])


# Memory.

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's mallopt
KEEP_MEMORY = "KERAS_MIXERS_KEEP_MEMORY"  # 0 in the environment refuses it


def keep_memory() -> bool:
    """Stops the C library from returning freed memory to the system, where that makes a CPU compute faster.

    Otherwise glibc returns every large feature map as soon as it is freed, and requests and clears the next one again,
    which takes longer than computing it. JAX and PyTorch suffer from that under Linux, and TensorFlow without oneDNN
    where a feature map of a batch takes 32 MiB or more. The setting holds for the whole process until it ends: what the
    process has taken once, it keeps. `fit` and the commands call this; the environment variable
    `KERAS_MIXERS_KEEP_MEMORY=0` refuses it.

    On JAX and TensorFlow it must be called before the first array is made: their threads, once started, have their own
    heaps, which no setting reaches. If it is too late a warning says so.

    Returns:
        Whether the C library keeps this process's memory now; False too where that is not needed.
    """
    return False


_heap_is_shared = False


def keep_memory_of_threads(library: str, started: bool, on_cpu: bool) -> bool:
    """Does what `keep_memory` describes for a library whose own threads allocate: before they start, all get one heap.

    Args:
        library: its name, for the warning.
        started: whether it has started its threads.
        on_cpu: whether it computes, or will compute, on a CPU.
    """
    global _heap_is_shared
    if not started:
        _heap_is_shared = on_cpu and keep_freed_memory(one_heap=True)
    elif on_cpu and not _heap_is_shared and os.environ.get(KEEP_MEMORY) != "0":
        warnings.warn(
            f"{library} has started its threads already, so that this process cannot keep its memory, and computes at "
            "down to half its speed: call keras_mixers.training.keep_memory() before the first array is made.",
            stacklevel=3,
        )
    return on_cpu and _heap_is_shared


def keep_freed_memory(one_heap: bool = False) -> bool:
    """Sets glibc's parameters; returns False under another C library, or if the environment refuses it.

    Args:
        one_heap: whether all threads share one: threads' own heaps hold no large blocks.
    """
    if os.environ.get(KEEP_MEMORY) == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No mapping of its own for a large block, and nothing returned from the top of the heap.
    settings = [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), *([(M_ARENA_MAX, 1)] if one_heap else [])]
    return all([mallopt(*setting) for setting in settings])


def peak_memory() -> int:
    """Returns the most bytes that this process had in the memory of its device."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike ru_maxrss, which on Linux begins with the memory of the process that started this one.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


# Optimiser.


def adamw() -> type[keras.optimizers.Optimizer]:
    """Returns the class of Keras's AdamW."""
    return keras.optimizers.AdamW


def clip_whole_batch(clip: Callable[[list[Any]], list[Any]], gradients: list[Any]) -> list[Any]:
    """Applies `clip` to the gradients of the whole batch, also where each device has those of its part."""
    return clip(gradients)
