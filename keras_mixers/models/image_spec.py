"""The images that a network was trained on, and how any image becomes one of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from keras_mixers.layers.validation import check_data_format

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class ImageSpec:
    """The images that a network takes: their size, their statistics, and how they are cut from photographs.

    Attributes:
        size: height and width in pixels.
        mean: mean of each colour, for pixels from 0 to 1.
        std: standard deviation of each colour, for pixels from 0 to 1.
        crop_fraction: share of the shorter side that the crop at the centre keeps.
        interpolation: how images are resized, `"bicubic"` or `"bilinear"`, with antialiasing.
    """

    size: int
    mean: RGB
    std: RGB
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def resized(self, sides: Sequence[int | None]) -> "ImageSpec":
        """Returns the same statistics for a network of images with these sides, None for those that may vary.

        `size` becomes that of the fixed sides. If they differ, it is the longer one: the squares that are made of
        photographs then hold the network's images, which have to be cut out of them.
        """
        fixed = [side for side in sides if side is not None]
        return replace(self, size=max(fixed)) if fixed else self

    def crop(self, image: Any) -> np.ndarray:
        """Returns the square at the centre of an image, once its shorter side is `size / crop_fraction` pixels.

        Args:
            image: (height, width, 3), values from 0 to 255.

        Returns:
            float32 (size, size, 3) with whole values from 0 to 255, as an image file has them.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise ValueError(f"An image must be (height, width, 3), got shape {image.shape}; convert it to RGB.")
        if not (image.min() >= 0 and image.max() <= 255):  # not so for NaN either
            raise ValueError(f"ImageSpec must lie from 0 to 255, got {image.min()} to {image.max()}.")
        resized = math.floor(self.size / self.crop_fraction)
        height, width = (side * resized // min(image.shape[:2]) for side in image.shape[:2])
        image = self._resize(self._resize(image, (image.shape[0], width)), (height, width))
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return image[top : top + self.size, left : left + self.size].astype("float32")

    def _resize(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        # Along one axis at a time and rounded after each, as Pillow does, with which networks are evaluated.
        if size != image.shape[:2]:
            tensor = ops.image.resize(
                ops.convert_to_tensor(image.astype("float32")),
                size,
                interpolation=self.interpolation,
                antialias=True,
                data_format="channels_last",
            )
            image = ops.convert_to_numpy(tensor)
        return np.clip(np.rint(image), 0, 255)

    def preprocess(self, images: Any, *, normalize: bool = True, data_format: str | None = None) -> np.ndarray:
        """Makes a batch of photographs of any size, as `preprocess_input` explains."""
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise ValueError(
                f"images must be a batch or a list of images, got a single one of shape {images.shape}; "
                "put it into a list."
            )
        if not len(images):
            raise ValueError("images must hold at least one image, got none.")
        data_format = check_data_format(data_format)
        batch = np.stack([self.crop(image) for image in images])
        if normalize:
            batch = (batch / np.float32(255) - np.asarray(self.mean, "float32")) / np.asarray(self.std, "float32")
        return np.ascontiguousarray(np.moveaxis(batch, -1, 1)) if data_format == "channels_first" else batch
