"""Every public function, class and method says which types it takes and gives; mypy holds what they are together."""

import importlib
import inspect
import typing
from pathlib import Path

import pytest

import keras_mixers

pytestmark = pytest.mark.backend_independent
ROOT = Path(keras_mixers.__file__).parent
MODULES = ["keras_mixers", *(f"keras_mixers.{path.parent.name}" for path in sorted(ROOT.glob("*/__init__.py")))]


def public(module):
    """Give name and function of what a module's `__all__` names, and of the public methods of its classes."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value):
            own = {key: member for key, member in vars(value).items() if not key.startswith("_") or key == "__init__"}
            functions = {key: member for key, member in own.items() if inspect.isfunction(member)}
            yield from ((f"{name}.{key}", member) for key, member in functions.items())
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_are_annotated(module):
    for name, function in public(importlib.import_module(module)):
        signature = inspect.signature(function)
        parameters = [key for key in signature.parameters if key != "self"]
        lacking = [key for key in parameters if signature.parameters[key].annotation is inspect.Parameter.empty]
        assert not lacking, f"{module}.{name}"
        assert signature.return_annotation is not inspect.Signature.empty, f"{module}.{name}"


def test_there_is_something_to_check():
    assert sum(1 for module in MODULES for _ in public(importlib.import_module(module))) > 100
    assert typing.get_type_hints(keras_mixers.list_models)["return"] == list[str]


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").is_file()
