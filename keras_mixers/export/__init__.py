"""Networks leave Keras: folded, written in the formats of other runtimes, and compared there with what they were."""

from keras_mixers.export.export import ExportReport, export_model
from keras_mixers.export.folding import fold
from keras_mixers.export.format import Format, Job, Quantization
from keras_mixers.export.formats import FORMATS, read_metadata
from keras_mixers.export.job import ExportError

__all__ = [
    "FORMATS", "ExportError", "ExportReport", "Format", "Job", "Quantization", "export_model", "fold", "read_metadata",
]  # fmt: skip
