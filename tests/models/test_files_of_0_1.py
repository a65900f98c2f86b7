"""Files that version 0.1 wrote give the outputs that they gave then."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_mixers  # noqa: F401  registers the classes

FOLDER = Path(__file__).parents[1] / "files_of_0_1"
FILES = sorted(path.stem for path in FOLDER.glob("*.keras"))


def test_all_are_there():
    assert FILES == ["convmixer_first", "splitmixer_i", "splitmixer_iii_f16", "stridemixer"]


@pytest.mark.parametrize("name", FILES)
def test_loads_and_gives_the_same_outputs(name):
    outputs = np.load(FOLDER / "outputs.npz")
    images = outputs["images"]
    images = np.moveaxis(images, -1, 1) if name == "convmixer_first" else images
    found = keras.saving.load_model(FOLDER / f"{name}.keras").predict(images, verbose=0)
    difference = np.abs(np.asarray(found, "float32") - outputs[name]).max() / np.abs(outputs[name]).max()
    assert difference < (1e-2 if name.endswith("f16") else 1e-5)
