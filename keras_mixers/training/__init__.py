"""What the papers' training runs need beside Keras."""

from keras_mixers.training.adamw import AdamW
from keras_mixers.training.history import HistoryWriter
from keras_mixers.training.schedule import TriangularSchedule

__all__ = ["AdamW", "HistoryWriter", "TriangularSchedule"]
