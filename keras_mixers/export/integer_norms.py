"""Norms behind an activation, or its mean, that has eight bits: fitted to what eight bits leave.

An integer tensor has one step for all channels. Where a channel varies by less than a step, as one whose activation
is all but 0 does, a norm with its large scale makes noise of it: the scales of a trained SplitMixer's norms reach
1,000 times their median. So a norm `scale * x + shift` becomes `a * q + b`, with a and b per channel that come closest
to it by least squares over representative images, where q is x as the network of eight bits has it: rounded, and
computed from rounded maps, so that each norm also mends what was lost before it. A channel that rounds to nothing
gives its mean.

Fitted norms are for rounded maps alone: without rounding they give others, and wider ones. So the ranges of a
network's tensors are those from before.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

SMALLEST_SCALE = 1e-3  # a smaller one would leave the bias, an integer in units of the scale, no room
FITTED_BEHIND = keras.layers.Activation, keras.layers.GlobalAveragePooling2D
KERNELS = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense
LARGEST_MAP = 2**25  # numbers of one tensor for all images together: 1/8 GB, of which up to 16 are held at a time


def fit_norms(model: keras.Model, images: np.ndarray, ranges: dict[str, tuple[float, float]] | None = None) -> None:
    """Fits the multiply-adds of a network that was written out with `multiply_add="depthwise"`, in place.

    The network is computed twice, one operation after another: as it is, and with kernels and results rounded. Images
    beyond `LARGEST_MAP` are left out.

    Args:
        model: a network of plain Keras layers.
        images: representative images, as the network takes them.
        ranges: the (lowest, highest) values that the results of layers are rounded to, by the layer's name; others are
            not rounded. By default each result is, to the values that it has without rounding.
    """
    norms = fitted_norms(model)
    if not norms:
        return
    shape = keras.Model(model.input, norms[0].output).compute_output_shape(images.shape)
    images = images[: max(1, LARGEST_MAP * len(images) // int(np.prod(shape)))]
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    nodes = [node for node in nodes if not node.is_input]
    uses = Counter(id(x) for node in nodes for x in node.input_tensors)
    image = id(model.inputs[0])
    exact, coarse = {image: images}, {image: rounded(images, images.min(), images.max())}
    for node in nodes:
        results = _compute(node, exact)
        if _is_fitted(node.operation):
            _fit(node.operation, coarse[id(node.input_tensors[0])], results[0])
        with _rounded_kernel(node.operation):
            roughly = _compute(node, coarse)
        if ranges is None:
            roughly = [rounded(rough, x.min(), x.max()) for rough, x in zip(roughly, results, strict=True)]
        elif node.operation.name in ranges:
            roughly = [rounded(roughly[0], *ranges[node.operation.name])]
        for x, result, rough in zip(node.outputs, results, roughly, strict=True):
            exact[id(x)], coarse[id(x)] = result, rough
        for x in node.input_tensors:
            uses[id(x)] -= 1
            if not uses[id(x)]:
                del exact[id(x)], coarse[id(x)]


def fitted_norms(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that `fit_norms` fits."""
    return [layer for layer in model.layers if _is_fitted(layer)]


def rounded(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns values as they are with eight bits from `low` to `high`; 0 stays 0."""
    low, high = min(0.0, float(low)), max(0.0, float(high))
    step = (high - low) / 255 or 1.0
    zero = float(np.rint(-low / step))
    return (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step


def _compute(node: Any, values: dict[int, np.ndarray]) -> list[np.ndarray]:
    inputs = {id(x): ops.convert_to_tensor(values[id(x)]) for x in node.input_tensors}
    arguments, options = node.arguments.fill_in(inputs)
    results = node.operation(*arguments, **options)
    return [ops.convert_to_numpy(x) for x in (results if isinstance(results, list | tuple) else [results])]


@contextlib.contextmanager
def _rounded_kernel(operation: Any) -> Iterator[None]:
    """Gives a layer a kernel of eight bits with one step per output channel."""
    if not isinstance(operation, KERNELS):
        yield
        return
    weights = operation.get_weights()
    channels = (2, 3) if isinstance(operation, keras.layers.DepthwiseConv2D) else (weights[0].ndim - 1,)
    others = tuple(axis for axis in range(weights[0].ndim) if axis not in channels)
    step = np.maximum(np.abs(weights[0]).max(others, keepdims=True) / 127, 1e-30)
    operation.set_weights([np.rint(weights[0] / step) * step, *weights[1:]])
    try:
        yield
    finally:
        operation.set_weights(weights)


def _fit(norm: keras.layers.Layer, q: np.ndarray, y: np.ndarray) -> None:
    """Sets `norm` to that function of q which comes closest to y."""
    kernel, _ = norm.get_weights()
    axis = q.ndim - 1 if norm.data_format == "channels_last" else 1
    sums, positions = np.zeros((4, kernel.size)), y.size / kernel.size
    for each in zip(q, y, strict=True):  # image by image, as there are copies in float64
        a, b = (np.moveaxis(x, axis - 1, 0).reshape(kernel.size, -1).astype("float64") for x in each)
        sums += np.stack([a, b, a * a, a * b]).sum(2)
    mean_q, mean_y, mean_qq, mean_qy = sums / positions
    variance, covariance = mean_qq - mean_q**2, mean_qy - mean_q * mean_y
    is_constant = variance <= 1e-12 * mean_qq
    scale = np.where(is_constant, 0, covariance / np.where(is_constant, 1, variance))
    scale = np.where(np.abs(scale) < SMALLEST_SCALE, SMALLEST_SCALE, scale)
    norm.set_weights([scale.reshape(kernel.shape).astype("float32"), (mean_y - scale * mean_q).astype("float32")])


def _is_fitted(layer: Any) -> bool:
    return _is_norm_behind(layer, *FITTED_BEHIND)


def _is_norm_behind(layer: Any, *kinds: type) -> bool:
    if not isinstance(layer, keras.layers.DepthwiseConv2D) or layer.kernel_size != (1, 1):
        return False
    return isinstance(layer.input._keras_history.operation, kinds)
