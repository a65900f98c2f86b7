"""Outside backends/ no module asks which backend runs, or imports one, unless a format or the data itself is meant."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_independent

PACKAGE = Path(__file__).parents[2] / "keras_mixers"
# Who compares the backend's name, and why.
ASKS = {
    "process.py",  # TensorFlow needs no oneDNN where it only feeds the images
    "data/startup.py",  # TensorFlow feeds the images, and leaves the GPUs to another backend
    "export/job.py",  # a format is written by its own backend, in a process of that backend
}
# What of a backend itself is meant.
IMPORTS = {
    "export/litert.py",  # formats
    "export/onnx.py",
    "export/saved_model.py",
    "export/torch_program.py",
    "training/devices_on_jax.py",  # several devices, a file per backend
    "training/devices_on_tensorflow.py",
    "training/devices_on_torch.py",
    "weights/state_dicts.py",  # PyTorch's files of weights
    "benchmark/peers.py",  # networks of PyTorch, to compare with
    "benchmark/mlp_peers.py",
    "benchmark/subjects.py",
}
NAMES = {"jax", "tensorflow", "torch"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("backends/"):
            yield name, ast.parse(path.read_text())


def names_the_backend(node):
    """Tell whether `backends.NAME`, `keras.backend.backend()` or the environment's KERAS_BACKEND is meant."""
    text = ast.unparse(node)
    return any(part in text for part in ("backends.NAME", "backend.backend()", "'KERAS_BACKEND'", "config.backend()"))


def branches_on_the_backend(tree):
    """Tell whether a comparison, a table or the name of a backend in a condition decides by the backend."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            words = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant)}
            if names_the_backend(node) or (words & NAMES and "backend" in ast.unparse(node).lower()):
                return True
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and names_the_backend(node.slice):
            return True
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get") and node.args:
            keys = node.args[0]
            if ast.unparse(keys) in ("backends.NAME", "keras.backend.backend()"):
                return True
    return False


def test_nobody_outside_asks_for_the_backend():
    asking = {name for name, tree in modules() if branches_on_the_backend(tree)}
    assert asking == ASKS
    calling = {name for name, tree in modules() if "backend.backend()" in ast.unparse(tree)}
    assert not calling  # they record or print backends.NAME


def test_nobody_outside_imports_a_backend():
    importing = set()
    for name, tree in modules():
        for node in ast.walk(tree):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else found
            if {module.partition(".")[0] for module in found} & NAMES:
                importing.add(name)
    assert {name for name in importing if not name.startswith("data/")} == IMPORTS  # data/ is tf.data


@pytest.mark.parametrize(
    "code",
    [
        "if keras.backend.backend() == 'jax': pass",
        "table[backends.NAME]",
        "{'jax': f}.get(keras.backend.backend(), g)",
        "backend = backends.NAME\nif backend in ('torch',): pass",
        "os.environ.get('KERAS_BACKEND', 'tensorflow') != 'tensorflow'",
    ],
)
def test_these_would_be_found(code):
    assert branches_on_the_backend(ast.parse(code))
