"""Where in an image a network sees a class."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_mixers import backends
from keras_mixers.inference.images import check_batch, is_channels_first, prepare_images
from keras_mixers.inference.prediction import log_softmax
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models import feature_extractor
from keras_mixers.models.network import Network
from keras_mixers.visualize import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 32


def class_activation_map(
    model: keras.Model, images: np.ndarray, class_index: int | Sequence[int] | None = None
) -> np.ndarray:
    """Returns what each patch adds to the logit of a class.

    The head is linear on the mean over the patches, so that a logit is a sum over them:
    `logit[c] = Σ_ij map[i, j] + bias[c]` with `map[i, j] = Σ_d features[i, j, d] · kernel[d, c] / patches`. Features
    are what the mean is taken of: the output of the last mixer, or of a norm after it.

    Args:
        model: a network of this library with a mean and a head.
        images: a batch as the network takes it, (n, height, width, channels), or channels first as the network.
        class_index: the class, or one for each image; None for the most probable one of each.

    Returns:
        float32 (n, height, width), one value per patch.

    Raises:
        ValueError: if the model has no such head, or an argument is not as above.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.SplitMixerI(dim=16, blocks=2, data_format="channels_last")
        >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
        >>> maps = class_activation_map(model, images, class_index=3)
        >>> maps.shape
        (2, 16, 16)
        >>> logits = model.predict(images, verbose=0)[:, 3] - float(model.get_layer("head").bias[3])
        >>> bool(np.abs(maps.sum((1, 2)) - logits).max() < 1e-4)
        True
    """
    images = _check(model, images)
    weights = _class_weights(model, images, class_index)
    features = _features(model, images, _before_mean(model))
    patches = features.shape[1] * features.shape[2]
    return (np.einsum("nhwd,nd->nhw", features, weights) / patches).astype("float32")


def grad_cam(
    model: keras.Model, images: np.ndarray, class_index: int | Sequence[int] | None = None, layer: str | None = None
) -> np.ndarray:
    """Returns Grad-CAM's map of a class: where the features are that speak for it.

    `map = max(0, Σ_d weight[d] · features[:, :, d])`, where `weight[d]` is the mean over the patches of the gradient
    of the class's logit by feature map d. Right before the mean this is the positive part of `class_activation_map`.

    Args:
        model: a network of this library with a mean and a head.
        images: a batch as the network takes it, (n, height, width, channels), or channels first as the network.
        class_index: the class, or one for each image; None for the most probable one of each.
        layer: name of the layer that gives the feature maps, such as `"block_3_channel"`; None for the last one before
            the mean.

    Returns:
        float32 (n, height, width), one value of at least 0 per patch.

    Raises:
        ValueError: if the model has no such head, or an argument is not as above.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.SplitMixerI(dim=16, blocks=2, data_format="channels_last")
        >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
        >>> last = grad_cam(model, images, class_index=3)
        >>> bool(np.abs(last - class_activation_map(model, images, 3).clip(0)).max() < 1e-5)
        True
        >>> grad_cam(model, images, class_index=3, layer="block_0_spatial").shape
        (2, 16, 16)
    """
    images = _check(model, images)
    layer = _before_mean(model) if layer is None else layer
    if layer == "pool":
        raise ValueError(f"layer must give feature maps, got layer={layer!r}; the one before it is the default.")
    weights = _class_weights(model, images, class_index)
    features = _features(model, images, layer)
    *before_head, _ = model.layers
    after = before_head[before_head.index(model.get_layer(layer)) + 1 :]

    def sum_of_logits(maps: Any, weights: Any) -> Any:
        for each in after:
            maps = each(maps, training=False)
        return ops.sum(ops.cast(maps, "float32") * weights)  # each image's logit depends only on its own maps

    found = []
    for first in range(0, len(images), BATCH):
        maps = features[first : first + BATCH].astype("float32")
        chosen = ops.convert_to_tensor(weights[first : first + BATCH], "float32")
        _, (gradient,) = backends.value_and_gradients(lambda maps, w=chosen: sum_of_logits(maps, w), [maps])
        gradient = ops.convert_to_numpy(gradient)
        found.append(np.einsum("nhwd,nd->nhw", maps, gradient.mean((1, 2))).clip(0))
    return np.concatenate(found)


def class_maps(
    model: keras.Model, images: Sequence[Any], top: int = 3, layer: str | None = None, save: str | Path | None = None
) -> "Figure":
    """Draws photographs, and where in them a network sees its most probable classes.

    Args:
        model: a network of this library with a mean and a head.
        images: files, or arrays (height, width, 3) of pixels from 0 to 255, if the network knows its pixels; otherwise
            a batch as the network takes it.
        top: how many classes are shown.
        layer: draws `grad_cam` of this layer; None for `class_activation_map`.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure, a row for each image. Red patches speak for a class, blue ones against it; a row has one
        colour scale: contributions to the logit, or Grad-CAM's values.

    Raises:
        ValueError: if the model has no such head, or an argument is not as above.
        FileNotFoundError: if there is no such file.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.create_model("splitmixer_i_256_8", dim=16, blocks=2)
        >>> figure = class_maps(model, [np.zeros((32, 32, 3))], top=2)
        >>> len(figure.axes)  # the image, two classes, the scale
        4
    """
    check_positive_int("top", top)
    batch = _check(model, prepare_images(model, images))
    top = min(top, classes := model.layers[-1].units)
    logits = _logits(model, batch)
    probabilities = np.exp(log_softmax(logits))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    maps_of = class_activation_map if layer is None else partial(grad_cam, layer=layer)
    maps = maps_of(model, batch.repeat(top, 0), order.ravel())
    maps = maps.reshape(len(batch), top, *maps.shape[1:])

    names = getattr(model, "class_names", None) or [f"class {i}" for i in range(classes)]
    figure = style.new_figure(12, 0.8 + 11 / (top + 1) * len(batch) * 1.1, f"What speaks for a class, to {model.name}")
    for row, axes in enumerate(figure.subplots(len(batch), top + 1, squeeze=False)):
        image = style.picture(model, images[row], batch[row])
        style.show(axes[0], image, "image")
        largest = np.abs(maps[row]).max() or 1.0
        height, width = image.shape[:2]
        for i, index in enumerate(order[row]):
            style.show(axes[i + 1], style.gray(image))
            shown = axes[i + 1].imshow(
                maps[row, i], style.DIVERGING, vmin=-largest, vmax=largest, alpha=0.6, interpolation="bilinear",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )  # fmt: skip
            axes[i + 1].set_title(f"{names[index]}: {100 * probabilities[row, index]:.1f} %", fontsize="medium")
        figure.colorbar(
            shown, ax=axes, label="part of the logit, per patch" if layer is None else "Grad-CAM", shrink=0.8
        )
    return style.saved(figure, save)


def _check(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the images of a network with a mean and a head."""
    if not isinstance(model, Network):
        raise ValueError(f"model must be a network of keras_mixers, got {type(model).__name__}.")
    head = model.layers[-1]
    pool = next((layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)), None)
    if pool is None or not isinstance(head, keras.layers.Dense):
        raise ValueError(
            f"model must end with a mean and a head, got {model.name!r} without; build it with include_top=True."
        )
    if head.quantization_mode is not None:
        raise ValueError(
            f"model must not be quantised, got {model.name!r} in {head.quantization_mode}; pass the original network."
        )
    return check_batch(model, images)


def _before_mean(model: keras.Model) -> str:
    names = [layer.name for layer in model.layers]
    return names[names.index("pool") - 1]


def _features(model: keras.Model, images: np.ndarray, layer: str) -> np.ndarray:
    features = feature_extractor(model, [layer]).predict(images, batch_size=BATCH, verbose=0)[layer]
    return np.moveaxis(features, 1, -1) if features.ndim == 4 and is_channels_first(model) else features


def _kernel_and_bias(head: keras.layers.Layer) -> list[np.ndarray]:
    return [ops.convert_to_numpy(weight).astype("float64") for weight in (head.kernel, head.bias)]


def _logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns what the head gives before its activation."""
    kernel, bias = _kernel_and_bias(model.layers[-1])
    return _features(model, images, "pool") @ kernel + bias


def _class_weights(model: keras.Model, images: np.ndarray, class_index: int | Sequence[int] | None) -> np.ndarray:
    """Returns the head's weights (n, dim) for the class of each image."""
    count, classes = len(images), model.layers[-1].units
    indices = _logits(model, images).argmax(1) if class_index is None else np.asarray(class_index)
    fits = indices.dtype.kind in "iu" and indices.shape in ((), (count,))
    if not fits or not ((indices >= 0) & (indices < classes)).all():
        raise ValueError(
            f"class_index must be a whole number from 0 to {classes - 1}, or one for each of {count} images, got "
            f"class_index={class_index!r}."
        )
    return _kernel_and_bias(model.layers[-1])[0].T[np.broadcast_to(indices, count)]
