"""How fast networks run, beside the same networks as others write them; what they reach, trained alike."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_mixers.benchmark.benchmark import benchmark
from keras_mixers.benchmark.report import Report

if TYPE_CHECKING:
    from keras_mixers.benchmark.comparison import Compared, compare

__all__ = ["Compared", "Report", "benchmark", "compare"]


def __getattr__(name: str) -> Any:
    if name not in ("Compared", "compare"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when they are asked for, as it imports TensorFlow, which feeds the images.
    return getattr(import_module("keras_mixers.benchmark.comparison"), name)
