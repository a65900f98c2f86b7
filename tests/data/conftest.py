"""Images for the tests of the data pipelines: drawn ones, and real ones where shared/data is beside the repository."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise

from keras_mixers.data import Images

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def cifar10():
    """The first 64 test images of CIFAR-10."""
    if not (SHARED / "load.py").exists():
        pytest.skip(f"{SHARED} with CIFAR-10 is absent")
    sys.path.insert(0, str(SHARED))
    try:
        import load
    finally:
        sys.path.remove(str(SHARED))
    pixels, _ = load.read_part(SHARED / "cifar10" / "test.npz")
    return pixels[:64]


@pytest.fixture(scope="session")
def imagenette():
    folder = SHARED / "imagenette_mini"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture
def images():
    """Eleven images of 8 x 8 pixels in three classes; image i begins with the pixel (i, i, i)."""
    pixels = noise(11, 8)
    pixels[:, 0, 0] = np.arange(11)[:, None]
    records = tf.data.Dataset.from_tensor_slices((pixels, np.arange(11) % 3))
    return Images(records, 11, ("ant", "bee", "cat"))
