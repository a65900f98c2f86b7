"""Half of `cifar10_smoke`'s path on real CIFAR-10: a network that learns, not one that merely runs."""

import runpy
from pathlib import Path

import pytest
import tensorflow as tf

from keras_mixers.data import Images
from keras_mixers.training import fit, get_recipe

pytestmark = pytest.mark.backend_independent
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not (DATA / "load.py").is_file(), reason=f"the packed CIFAR-10 is not at {DATA}")
def test_learns_cifar10(tmp_path):
    pixels, labels = runpy.run_path(str(DATA / "load.py"))["read_part"](DATA / "cifar10" / "test.npz")
    names = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())

    def images(start, stop):
        arrays = pixels[start:stop], labels[start:stop].astype("int64")
        return Images(tf.data.Dataset.from_tensor_slices(arrays), stop - start, names)

    recipe = get_recipe("cifar10_smoke").change({"epochs": 6})
    run = fit(recipe, output_dir=tmp_path / "run", train_images=images(0, 4000), test_images=images(4000, 5000))
    assert run.metrics["top1"] > 0.45
    assert run.history[-1]["loss"] < 0.7 * run.history[0]["loss"]
