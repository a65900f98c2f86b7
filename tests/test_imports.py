"""Imports run one way, and `import keras_mixers` brings no other backend."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
# What each package may import of this project.
ALLOWED = {
    "layers": {"layers"},
    "weights": {"layers", "weights"},
    "models": {"layers", "weights", "models"},
    "profiling": {"layers", "models", "training", "profiling", "machine"},
    "visualize": {"layers", "models", "profiling", "visualize"},
    "data": {"layers", "models", "data"},
    "training": {"layers", "models", "visualize", "data", "training", "machine"},
    "export": {"layers", "models", "training", "export"},
    "commands": {
        "layers",
        "weights",
        "models",
        "profiling",
        "visualize",
        "data",
        "training",
        "export",
        "machine",
        "commands",
    },
}


def test_every_package_has_its_rule():
    packages = {path.parent.name for path in (ROOT / "keras_mixers").glob("*/__init__.py")}
    assert packages == set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    for path in (ROOT / "keras_mixers" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            for module in modules:
                if module.startswith("keras_mixers."):
                    assert module.split(".")[1] in ALLOWED[package], f"{path} imports {module}"


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
