"""Recipes, and `fit`, which carries them out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_mixers.backends import keep_memory
from keras_mixers.optimizers.adamw import AdamW
from keras_mixers.optimizers.muon import Muon
from keras_mixers.optimizers.schedule import TriangularSchedule
from keras_mixers.training.history import HistoryWriter, read_history

if TYPE_CHECKING:
    from keras_mixers.training.devices import join_processes
    from keras_mixers.training.recipe import Recipe
    from keras_mixers.training.recipes import RECIPES, get_recipe
    from keras_mixers.training.reproduction import reproduce
    from keras_mixers.training.run import Run, fit

# Imported when they are asked for: these import TensorFlow, which feeds the images.
_LATER = {
    "RECIPES": "recipes",
    "Recipe": "recipe",
    "Run": "run",
    "get_recipe": "recipes",
    "fit": "run",
    "join_processes": "devices",
    "reproduce": "reproduction",
}

__all__ = [
    "RECIPES",
    "AdamW",
    "HistoryWriter",
    "Muon",
    "Recipe",
    "Run",
    "TriangularSchedule",
    "get_recipe",
    "fit",
    "join_processes",
    "keep_memory",
    "read_history",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
