"""Images that nobody took: arrays, files in class folders, and data sets of TFDS."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def noise(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def scenes(count, size, seed=0):
    """Smooth images of few and uneven grey levels, with black and white parts, as photographs have them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    waves = [a * np.sin(b * rows + c * columns + d) for a, b, c, d in rng.uniform(0, 9, (count * 3, 4))]
    levels = 128 + rng.uniform(10, 40, (count * 3, 1, 1)) * np.stack(waves)
    return np.clip(levels, 0, 255).astype(np.uint8).reshape(count, 3, size, size).transpose(0, 2, 3, 1)


def colored(count, size, seed=0):
    """Images of which every third is mostly red, green or blue, with the place of their class in CLASSES."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, size, size + 4, 3))
    pixels[np.arange(count), :, :, 2 - labels] += 100
    return pixels.astype(np.uint8), labels


def write_class_folders(folder, count, size, seed=0):
    """Write `colored` images as FOLDER/CLASS/NUMBER.png, and return the folder."""
    for i, (pixels, label) in enumerate(zip(*colored(count, size, seed), strict=True)):
        path = Path(folder, CLASSES[label], f"{i:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return Path(folder)


def write_tfds(name, directory, splits, size):
    """Prepare the TFDS data set `name` of `noise`, with so many images in each of its splits."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=directory)

    def examples(count):
        for i, pixels in enumerate(noise(count, size)):
            values = {tfds.features.Image: pixels, tfds.features.ClassLabel: i % 3}
            yield i, {key: values.get(type(kind), str(i)) for key, kind in builder.info.features.items()}

    builder._split_generators = lambda manager: {split: examples(count) for split, count in splits.items()}
    builder.download_and_prepare()
