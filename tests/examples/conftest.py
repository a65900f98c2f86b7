"""Examples run as users run them, on a small CIFAR-10 as the TFDS data set that they read."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The TFDS data set cifar10 with 512 training and 128 test images."""
    if not (DATA / "load.py").is_file():
        pytest.skip(f"the packed CIFAR-10 is not at {DATA}")
    import tensorflow_datasets as tfds

    spec = importlib.util.spec_from_file_location("load", DATA / "load.py")
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    images, labels = load.read_part(DATA / "cifar10" / "test.npz")
    directory = tmp_path_factory.mktemp("tfds")
    builder = tfds.builder("cifar10", data_dir=directory)

    def examples(start, stop):
        for i in range(start, stop):
            yield i, {"id": f"image_{i:05d}", "image": images[i], "label": int(labels[i])}

    builder._split_generators = lambda manager: {"train": examples(0, 512), "test": examples(512, 640)}
    builder.download_and_prepare()
    return directory


@pytest.fixture
def run_example():
    """Run an example in a process of its own, which has to succeed if nothing else is expected."""

    def run(name, *flags, succeeds=True):
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, flags)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()}
        environment.pop("TF_ENABLE_ONEDNN_OPTS", None)  # conftest's: as a user types it, the example chooses
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert (done.returncode == 0) == succeeds, done.stderr[-2000:]
        return done

    return run
