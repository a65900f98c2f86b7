"""Norms behind an activation, or its mean, that has eight bits: fitted to what eight bits leave.

An integer tensor has one step for all channels. Where a channel varies by less than a step, as one whose activation
is all but 0 does, a norm with its large scale makes noise of it: the scales of a trained SplitMixer's norms reach
1,000 times their median. So a norm `scale * x + shift` becomes `a * q(x) + b`, with a and b per channel that come
closest to it by least squares over representative images, where q rounds as integers do. A channel that rounds to
nothing gives its mean.
"""

from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

SMALLEST_SCALE = 1e-3  # a smaller one would leave the bias, an integer in units of the scale, no room
FITTED_BEHIND = keras.layers.Activation, keras.layers.GlobalAveragePooling2D


def fit_norms(model: keras.Model, batches: Callable[[], Iterable[np.ndarray]]) -> None:
    """Fits the multiply-adds of a network that was written out with `multiply_add="depthwise"`, in place.

    Args:
        model: a network of plain Keras layers.
        batches: gives batches of representative images, as the network takes them.
    """
    norms = [layer for layer in model.layers if _is_norm_behind(layer, *FITTED_BEHIND)]
    if not norms:
        return
    inputs = keras.Model(model.input, [norm.input for norm in norms])

    def maps() -> Iterator[tuple[int, np.ndarray]]:
        """Yields (channels, positions) in float64 for each norm, image by image: those of large networks are large."""
        for images in batches():
            for image in images:
                for i, x in enumerate(inputs.predict_on_batch(image[None])):
                    axis = -1 if norms[i].data_format == "channels_last" else 1
                    yield i, np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype("float64")

    lows, highs = np.zeros((2, len(norms)))
    for i, x in maps():
        lows[i], highs[i] = min(lows[i], x.min()), max(highs[i], x.max())
    moments, counts = [0.0] * len(norms), np.zeros(len(norms))
    for i, x in maps():
        q = rounded(x, lows[i], highs[i])
        moments[i] = moments[i] + np.stack([x, q, q * q, q * x]).sum(2)
        counts[i] += x.shape[1]
    for norm, sums, count in zip(norms, moments, counts, strict=True):
        mean, mean_q, mean_qq, mean_qx = sums / count
        kernel, shift = norm.get_weights()
        scale = kernel.ravel().astype("float64")
        variance, covariance = mean_qq - mean_q**2, mean_qx - mean_q * mean
        is_constant = variance <= 1e-12 * mean_qq
        a = np.where(is_constant, 0, scale * covariance / np.where(is_constant, 1, variance))
        a = np.where(np.abs(a) < SMALLEST_SCALE, SMALLEST_SCALE, a)
        b = scale * mean + shift - a * mean_q
        norm.set_weights([a.reshape(kernel.shape).astype("float32"), b.astype("float32")])


def rounded(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns float64 values as they are with eight bits from `low` to `high`, one of which is 0."""
    step = (high - low) / 255 or 1.0
    zero = np.rint(-low / step)
    return (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step


def _is_norm_behind(layer: keras.layers.Layer, *kinds: type) -> bool:
    if not isinstance(layer, keras.layers.DepthwiseConv2D) or layer.kernel_size != (1, 1):
        return False
    return isinstance(layer.input._keras_history.operation, kinds)
