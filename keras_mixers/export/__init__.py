"""Networks leave Keras: folded, written in the formats of other runtimes, and compared there with what they were."""

from keras_mixers.export.export import ExportReport, export_model
from keras_mixers.export.folding import fold
from keras_mixers.export.job import ExportError
from keras_mixers.export.metadata import read_metadata

__all__ = ["ExportError", "ExportReport", "export_model", "fold", "read_metadata"]
