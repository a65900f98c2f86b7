"""The images that a network was trained on, and how any image becomes one of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from keras_mixers.layers.validation import (
    check_choice,
    check_colors,
    check_data_format,
    check_positive_int,
    lists_to_tuples,
)

RGB = tuple[float, float, float]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class ImageSpec:
    """The images that a network takes: their size, their statistics, and how they are cut from photographs.

    Args:
        size: height and width in pixels.
        mean: mean of each colour, for pixels from 0 to 1.
        std: standard deviation of each colour, for pixels from 0 to 1.
        crop_fraction: share of the shorter side that the crop at the centre keeps.
        interpolation: how images are resized, `"bicubic"` or `"bilinear"`, with antialiasing.

    Raises:
        ValueError: if an attribute is not as above.

    Example:
        >>> spec = ImageSpec(224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop_fraction=0.96)
        >>> spec.preprocess([np.full((300, 400, 3), 255)], data_format="channels_last")[0, 0, 0].tolist()
        [2.0, 2.0, 2.0]
    """

    size: int
    mean: RGB
    std: RGB
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        check_positive_int("size", self.size)
        check_colors("mean", self.mean)
        check_colors("std", self.std, above=0)
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be above 0 and at most 1, got crop_fraction={self.crop_fraction}.")
        check_choice("interpolation", self.interpolation, tuple(FILTERS))

    @property
    def shorter_side(self) -> int:
        """Length in pixels to which the shorter side of a photograph is resized before the crop."""
        return math.floor(self.size / self.crop_fraction)

    def resized(self, sides: Sequence[int | None]) -> "ImageSpec":
        """Returns the same statistics in the size of these sides: the longest of those that are not None."""
        return replace(self, size=max((side for side in sides if side is not None), default=self.size))

    def crop(self, image: Any) -> np.ndarray:
        """Returns the square at the centre of an image, once Pillow has resized its shorter side to `shorter_side`.

        Args:
            image: (height, width, 3), values from 0 to 255; fractions are rounded first, as an image file has none.

        Returns:
            uint8 (size, size, 3).
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise ValueError(f"An image must be (height, width, 3), got shape {image.shape}; convert it to RGB.")
        if image.dtype != "uint8":
            if not (image.min() >= 0 and image.max() <= 255):  # not so for NaN either
                raise ValueError(f"Pixels must lie from 0 to 255, got {image.min()} to {image.max()}.")
            image = np.rint(image).astype("uint8")
        photograph = Image.fromarray(image)
        sides = [side * self.shorter_side // min(photograph.size) for side in photograph.size]
        left, top = (round((side - self.size) / 2) for side in sides)
        resized = photograph.resize(sides, FILTERS[self.interpolation])
        return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))

    def normalize(self, batch: np.ndarray, data_format: str | None = None) -> np.ndarray:
        """Returns `(x / 255 - mean) / std` of images with values from 0 to 255, as float32.

        Args:
            batch: (images, height, width, 3), or (images, 3, height, width) with channels first.
            data_format: `"channels_last"`, `"channels_first"` or None for Keras's setting.
        """
        shape = (3,) if check_data_format(data_format) == "channels_last" else (3, 1, 1)
        mean, std = np.reshape(self.mean, shape), np.reshape(self.std, shape)
        return ((batch / 255 - mean) / std).astype("float32")

    def preprocess(self, images: Any, *, normalize: bool = True, data_format: str | None = None) -> np.ndarray:
        """Makes a float32 batch of photographs of any size, as `preprocess_input` explains."""
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise ValueError(
                f"images must be a batch or a list of images, got a single one of shape {images.shape}; "
                "put it into a list."
            )
        if not len(images):
            raise ValueError("images must hold at least one image, got none.")
        data_format = check_data_format(data_format)
        batch = np.stack([self.crop(image) for image in images])
        batch = np.ascontiguousarray(np.moveaxis(batch, -1, 1)) if data_format == "channels_first" else batch
        return self.normalize(batch, data_format) if normalize else batch.astype("float32")
