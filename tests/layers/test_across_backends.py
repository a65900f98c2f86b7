"""A file written on the backend that runs gives the same outputs on the other two."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from every_layer import EACH_KIND, EVERY_LAYER, SHAPE, input_shape

OTHERS = sorted({"jax", "tensorflow", "torch"} - {keras.backend.backend()})

LOAD_AND_COMPARE = """
import sys

import keras
import numpy as np

import keras_mixers.layers

assert keras.backend.backend() == sys.argv[1], keras.backend.backend()
model = keras.saving.load_model("model.keras")
arrays = np.load("arrays.npz")
for layer, y in zip(model.output_names, model([arrays["x"]] * 2), strict=True):
    y = keras.ops.convert_to_numpy(y)
    difference = np.abs(y - arrays[layer]).max() / np.abs(arrays[layer]).max()
    assert difference < 1e-5, (layer, difference)
    print(layer, difference)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, randomize):
    """Save a model of every layer, and of each kind in channels first, with an input and the outputs it gives here."""
    folder = tmp_path_factory.mktemp("across_backends")
    inputs = [keras.Input(shape) for shape in dict.fromkeys(map(input_shape, EVERY_LAYER.values()))]
    last = {x.shape[1:]: x for x in inputs}
    first = {shape: keras.layers.Permute((3, 1, 2))(x) for shape, x in last.items()}
    outputs = [make(name=name)(last[input_shape(make)]) for name, make in EVERY_LAYER.items()]
    outputs += [
        make(name=f"{name}_first", data_format="channels_first")(first[input_shape(make)])
        for name, make in EACH_KIND.items()
    ]
    model = randomize(keras.Model(inputs, outputs))
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    arrays = {name: keras.ops.convert_to_numpy(y) for name, y in zip(model.output_names, model([x, x]), strict=True)}
    np.savez(folder / "arrays.npz", x=x, **arrays)
    return folder


@pytest.mark.parametrize("backend", OTHERS)
def test_saved_here_and_loaded_there(backend, folder):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    root = Path(__file__).parents[2]
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run(
        [sys.executable, "-c", LOAD_AND_COMPARE, backend],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(result.stdout.splitlines()) == len(EVERY_LAYER) + len(EACH_KIND)
