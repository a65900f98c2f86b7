"""Image files, read as a person sees them."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # the files of a folder that are read as images


def read_image(image: Any) -> np.ndarray:
    """Returns an image (height, width, 3) of a file, or the array that it is.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image.
    """
    if not isinstance(image, str | Path):
        return image
    try:
        return decode_image(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image at {str(image)!r}.") from error
    except Exception as error:  # Pillow's error depends on where a file is damaged
        reason = getattr(error, "strerror", None) or "it is no image, or damaged"
        raise ValueError(f"The image {str(image)!r} cannot be read: {reason}.") from error


def decode_image(source: str | Path | BinaryIO) -> np.ndarray:
    """Returns the pixels of an image file as a person sees them, uint8 (height, width, 3).

    The contents tell the format, not the name. Photographs are turned as their EXIF orientation says, of 16-bit values
    the upper 8 bits are kept, grey becomes three equal colours, and transparency is dropped.

    Args:
        source: a path, or a file opened in binary mode.

    Raises:
        OSError: if it is no image, or damaged.
    """
    with Image.open(source) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith("I"):
            turned = Image.fromarray((np.asarray(turned) >> 8).astype("uint8"))
        return np.asarray(turned.convert("RGB"))
