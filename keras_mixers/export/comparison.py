"""The images on which a network and its export are compared."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_mixers.export.folding import Form
from keras_mixers.inference.images import is_channels_first, normalizes
from keras_mixers.models.image_files import read_image
from keras_mixers.models.image_spec import ImageSpec

# For a network that does not know its pixels.
UNKNOWN = ImageSpec(64, mean=(0.5,) * 3, std=(0.25,) * 3)


def comparison_batches(
    model: keras.Model, form: Form, name: str, images: Sequence[Any] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns batches of the argument `name`, or else of `drawn_images`, for a network and for its export in a form."""
    channels_first, pixels = is_channels_first(model), getattr(model, "pixels", None)
    channels = model.input_shape[1 if channels_first else -1]
    spec = pixels or UNKNOWN
    height, width = (side or spec.size for side in form.image_size)
    if pixels is None and images is not None:
        shape = (channels, height, width) if channels_first else (height, width, channels)
        batch = np.asarray(images, "float32")
        if batch.shape[1:] != shape or not len(batch):
            raise ValueError(
                f"{name} must be a batch as the network takes it, (images, {', '.join(map(str, shape))}), as the "
                f"network does not say which pixels it takes (model.pixels); got shape {batch.shape}."
            )
        return batch, batch.astype("uint8") if form.raw else batch
    if images is None and channels not in (1, 3):
        raise ValueError(f"images must be given for a network of {channels} channels.")
    images = drawn_images() if images is None else images
    if isinstance(images, str) or not len(images):
        raise ValueError(f"{name} must be a list of at least one image, got {name}={images!r}.")
    try:
        spec = replace(spec, size=max(height, width))
        raw = spec.preprocess([*map(read_image, images)], normalize=False, data_format="channels_last")
    except ValueError as error:
        raise ValueError(f"{name} must be files or arrays (height, width, 3) of raw pixels: {error}") from error
    batches = [raw if normalizes(model) else spec.normalize(raw, "channels_last"), raw]
    batches = [batch[:, :height, :width, :channels] for batch in batches]
    if channels_first:
        batches = [np.ascontiguousarray(np.moveaxis(batch, -1, 1)) for batch in batches]
    network, raw = batches
    return network, raw.astype("uint8") if form.raw else network


def drawn_images(count: int = 32, side: int = 128) -> list[np.ndarray]:
    """Draws uint8 images (side, side, 3) with the statistics of photographs, always the same: comparing needs no data.

    Discs of many sizes cover each other, as objects do, which gives edges and even areas of all brightnesses; the
    spectrum of the noise over them falls as 1 / f, as that of photographs does.
    """
    rng = np.random.default_rng(0)
    frequency = np.maximum(np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)), 1 / side)
    rows, columns = np.mgrid[:side, :side] / side
    images = []
    for _ in range(count):
        image = np.zeros((side, side, 3))
        for radius in 0.8 / np.arange(1, 17):
            row, column = rng.uniform(size=2)
            image[np.hypot(rows - row, columns - column) < radius] = rng.uniform(0, 255) + rng.normal(0, 30, 3)
        noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, side, side))) / frequency, (side, side))
        image += rng.uniform(5, 50) * np.moveaxis(noise / noise.std(), 0, -1)
        images.append(np.clip(image, 0, 255).astype("uint8"))
    return images
