"""Photographs on their way into a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.layers import NormalizePixels
from keras_mixers.models.image_files import read_image
from keras_mixers.models.network import Network


def is_channels_first(model: keras.Model) -> bool:
    """Whether a network takes images with their channels first."""
    if isinstance(model, Network):
        return model.takes_channels_first
    shape = model.input_shape
    return shape[-1] is None or (shape[1] in (1, 3) and shape[-1] not in (1, 3))


def normalizes(model: keras.Model) -> bool:
    """Whether a network takes pixels from 0 to 255, and normalises them itself."""
    return any(isinstance(layer, NormalizePixels) for layer in model.layers)


def prepare_images(model: keras.Model, images: Sequence[Any]) -> np.ndarray:
    """Returns the batch that a network takes of images, as arrays that it takes.

    If it knows its `pixels`, images are files, or arrays (height, width, 3) of pixels from 0 to 255.
    """
    check_list(images)
    if getattr(model, "pixels", None) is not None:
        data_format = "channels_first" if is_channels_first(model) else "channels_last"
        read = [read_image(image) for image in images]
        batch = model.pixels.preprocess(read, normalize=not normalizes(model), data_format=data_format)
        return check_batch(model, batch)  # a network of oblong images takes no square
    if any(isinstance(image, str | Path) for image in images):
        raise ValueError(
            f"images must be arrays as {model.name!r} takes them, {model.input_shape[1:]}, as it does not say which "
            "pixels it takes (model.pixels), got a file."
        )
    return check_batch(model, np.stack([np.asarray(image, "float32") for image in images]))


def check_list(images: Sequence[Any]) -> None:
    """Refuses a single file, and no images."""
    if isinstance(images, str | Path) or not len(images):
        raise ValueError(f"images must be a list of at least one image, got images={images!r}.")


def check_batch(model: keras.Model, images: Any) -> np.ndarray:
    """Returns images as an array, if a network takes a batch of this shape."""
    images, shape = np.asarray(images), model.input_shape
    if images.ndim != 4 or any(own not in (None, side) for own, side in zip(shape[1:], images.shape[1:], strict=True)):
        raise ValueError(
            f"images must be a batch as {model.name!r} takes it, {shape}, got shape {images.shape}; resize or crop."
        )
    if not len(images):
        raise ValueError("images must hold at least one image, got none.")
    return images
