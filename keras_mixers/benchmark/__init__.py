"""How fast networks run, beside the same networks as others write them."""

from keras_mixers.benchmark.benchmark import benchmark
from keras_mixers.benchmark.report import Report

__all__ = ["Report", "benchmark"]
