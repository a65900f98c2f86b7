"""Imports run one way, and `import keras_mixers` brings no other backend."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import keras

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_mixers"
# The rooms from the lowest to the highest, and what each imports of those below: exactly this.
ROOMS = {
    "process": set(),
    "backends": set(),
    "layers": {"backends"},
    "weights": {"layers"},
    "models": {"layers", "weights"},
    "environment": {"backends"},
    "optimizers": {"backends", "layers"},
    "profiling": set(),
    "data": {"backends", "layers", "models"},
    "inference": {"layers", "models", "data"},
    "training": {"backends", "layers", "models", "environment", "optimizers", "data"},
    "export": {"backends", "layers", "models", "inference"},
    "visualize": {"backends", "layers", "models", "profiling", "inference", "training"},
    "benchmark": {"backends", "layers", "models", "environment", "profiling", "data", "training", "visualize"},
    "commands": {"layers", "models", "profiling", "data", "inference", "training", "export", "visualize", "benchmark"},
}


def imported_rooms(path):
    """The rooms that a file imports, also by `from keras_mixers import layers`."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("keras_mixers.")} - {"__version__"}
    return rooms


def test_imports_run_one_way():
    files = {name: list((PACKAGE / name).rglob("*.py")) or [PACKAGE / f"{name}.py"] for name in ROOMS}
    found = {name: set().union(*map(imported_rooms, paths)) - {name} for name, paths in files.items()}
    assert found == ROOMS
    order = list(ROOMS)
    assert all(order.index(below) < order.index(room) for room in ROOMS for below in ROOMS[room])


def test_every_room_has_its_place():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} == set(ROOMS)


def test_brings_no_other_backend_and_no_matplotlib():
    backend = keras.backend.backend()
    others = {"jax", "tensorflow", "torch"} - {backend} | {"matplotlib", "keras_cv"}
    code = (
        "import sys, keras; before = set(sys.modules); import keras_mixers; keras_mixers.SplitMixerI(8, 1); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "keras_mixers" in loaded.stdout.split()
    assert not others & set(loaded.stdout.split())


STARTED = {
    "jax": "from jax._src import xla_bridge; print(bool(xla_bridge._backends))",
    "tensorflow": "from tensorflow.python.eager import context; print(context.context()._initialized)",
    "torch": "import torch; print(torch.cuda.is_initialized())",
}


def test_starts_no_device():
    """Who trains on several machines or devices says so between the import and the first computation."""
    backend = keras.backend.backend()
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    for code, expected in (("", "False"), ("import keras; keras.ops.ones(1); ", "True")):
        if (backend, expected) == ("torch", "True"):
            continue  # a computation on a CPU starts no GPU
        code = f"{code}import keras_mixers, keras_mixers.data, keras_mixers.profiling; {STARTED[backend]}"
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert shown.stdout.split() == [expected]
