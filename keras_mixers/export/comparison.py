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


class ComparisonImages:
    """Turns images into a batch for a network, and one for its export.

    Args:
        model: the network.
        form: what the export takes.
    """

    def __init__(self, model: keras.Model, form: Form) -> None:
        self.data_format = "channels_first" if is_channels_first(model) else "channels_last"
        self.channels = model.input_shape[1 if is_channels_first(model) else -1]
        self.known: ImageSpec | None = getattr(model, "pixels", None)
        spec = self.known or UNKNOWN
        self.size = tuple(side or spec.size for side in form.image_size)
        self.spec = replace(spec, size=max(self.size))
        self.raw, self.normalizes = form.raw is not None, normalizes(model)

    def batches(self, name: str, images: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns batches for the network and for its export.

        Args:
            name: of the argument, for the messages.
            images: files or arrays (height, width, 3) with values from 0 to 255, if the network knows its pixels;
                otherwise a batch as the network takes it. None for `drawn_images`.

        Raises:
            ValueError: if these are no such images.
        """
        if images is not None and self.known is None:
            batch = self._as_the_network_takes_it(name, images)
            return batch, batch.astype("uint8") if self.raw else batch
        if images is None and self.channels not in (1, 3):
            raise ValueError(f"images must be given for a network of {self.channels} channels.")
        raw = self._preprocess(name, drawn_images() if images is None else images)
        network = raw if self.normalizes else self.spec.normalize(raw, "channels_last")
        network, raw = (self._cut(batch) for batch in (network, raw))
        return network, raw.astype("uint8") if self.raw else network

    def _preprocess(self, name: str, images: Sequence[Any]) -> np.ndarray:
        if isinstance(images, str) or not len(images):
            raise ValueError(f"{name} must be a list of at least one image, got {name}={images!r}.")
        try:
            images = [read_image(image) for image in images]
            return self.spec.preprocess(images, normalize=False, data_format="channels_last")
        except ValueError as error:
            raise ValueError(f"{name} must be files or arrays (height, width, 3) of raw pixels: {error}") from error

    def _cut(self, batch: np.ndarray) -> np.ndarray:
        batch = batch[:, : self.size[0], : self.size[1], : self.channels]
        return np.ascontiguousarray(np.moveaxis(batch, -1, 1)) if self.data_format == "channels_first" else batch

    def _as_the_network_takes_it(self, name: str, images: Any) -> np.ndarray:
        batch = np.asarray(images, "float32")
        shape = (self.channels, *self.size) if self.data_format == "channels_first" else (*self.size, self.channels)
        if batch.shape[1:] != shape or not len(batch):
            raise ValueError(
                f"{name} must be a batch as the network takes it, (images, {', '.join(map(str, shape))}), as the "
                f"network does not say which pixels it takes (model.pixels); got shape {batch.shape}."
            )
        return batch


def drawn_images(count: int = 32, side: int = 128) -> list[np.ndarray]:
    """Draws images with the statistics of photographs, the same ones at each call: comparing then needs no data set.

    Discs of many sizes cover each other, as objects do, which gives edges and even areas of all brightnesses. The noise
    over them falls with the frequency as 1 / f, as the spectrum of photographs does.

    Args:
        count: number of images.
        side: height and width in pixels.

    Returns:
        uint8 arrays (side, side, 3).
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
