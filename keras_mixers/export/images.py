"""The photographs on which a network and its export are compared."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_mixers.inference.images import is_channels_first, normalizes
from keras_mixers.models.image_files import read_image
from keras_mixers.models.image_spec import ImageSpec

# For a network that does not know its pixels.
PLAIN = ImageSpec(1, mean=(0.5,) * 3, std=(0.25,) * 3)
CROPS = 32


class Images:
    """Makes of photographs what a network takes, and what its export takes.

    Args:
        model: the network.
        size: (height, width) of its images.
        raw: whether the export takes pixels from 0 to 255.
    """

    def __init__(self, model: keras.Model, size: tuple[int, int], raw: bool) -> None:
        self.size, self.raw = size, raw
        self.channels_first = is_channels_first(model)
        self.channels = model.input_shape[1 if self.channels_first else -1]
        self.known: ImageSpec | None = getattr(model, "pixels", None)
        self.pixels = replace(self.known or PLAIN, size=max(size))
        self.normalizes = normalizes(model)

    def pair(self, name: str, images: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns batches for the network and for its export.

        Args:
            name: of the argument, for the messages.
            images: files or arrays (height, width, 3) with values from 0 to 255, if the network knows its pixels;
                otherwise a batch as the network takes it. None for crops of scikit-learn's two photographs.

        Raises:
            ValueError: if these are no such images.
            ImportError: if there are none, and scikit-learn is not installed.
        """
        if images is not None and self.known is None:
            batch = self._as_the_network_takes_it(name, images)
            return batch, batch.astype("uint8") if self.raw else batch
        photographs = sample_photographs(self.channels) if images is None else images
        raw = self._crop(name, photographs)
        data_format = "channels_first" if self.channels_first else "channels_last"
        normalized = raw if self.normalizes else self.pixels.normalize(raw, data_format)
        batches = [
            batch[:, : self.channels] if self.channels_first else batch[..., : self.channels]
            for batch in (normalized, raw.astype("uint8"))
        ]
        return batches[0], batches[1] if self.raw else batches[0]

    def _crop(self, name: str, photographs: Sequence[Any]) -> np.ndarray:
        if isinstance(photographs, str) or not len(photographs):
            raise ValueError(f"{name} must be a list of at least one image, got {name}={photographs!r}.")
        data_format = "channels_first" if self.channels_first else "channels_last"
        try:
            raw = self.pixels.preprocess(
                [read_image(photograph) for photograph in photographs], normalize=False, data_format=data_format
            )
        except ValueError as error:
            raise ValueError(f"{name} must be files or arrays (height, width, 3) of raw pixels: {error}") from error
        height, width = self.size
        return raw[..., :height, :width] if self.channels_first else raw[:, :height, :width]

    def _as_the_network_takes_it(self, name: str, images: Any) -> np.ndarray:
        batch = np.asarray(images, "float32")
        shape = (self.channels, *self.size) if self.channels_first else (*self.size, self.channels)
        if batch.shape[1:] != shape or not len(batch):
            raise ValueError(
                f"{name} must be a batch as the network takes it, (images, {', '.join(map(str, shape))}), as the "
                f"network does not say which pixels it takes (model.pixels); got shape {batch.shape}."
            )
        return batch


def sample_photographs(channels: int) -> list[np.ndarray]:
    """Returns crops of two photographs, of many sizes and places."""
    if channels not in (1, 3):
        raise ValueError(f"images must be given for a network of {channels} channels.")
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "Give images to compare the export on, or install scikit-learn, which has two photographs: pip install "
            "scikit-learn"
        )
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    crops = []
    for photograph in load_sample_images().images:
        for _ in range(CROPS // 2):
            side = int(rng.integers(64, min(photograph.shape[:2])))
            top, left = (int(rng.integers(0, extent - side + 1)) for extent in photograph.shape[:2])
            crops.append(photograph[top : top + side, left : left + side])
    return crops
