"""The optimisers and learning rate schedules that mixers are trained with."""

from keras_mixers.optimizers.adamw import AdamW
from keras_mixers.optimizers.muon import Muon
from keras_mixers.optimizers.schedule import SCHEDULES, TriangularSchedule, warmup_cosine

OPTIMIZERS = {"adamw": AdamW, "muon": Muon}  # by the names that recipes have for them

__all__ = ["OPTIMIZERS", "SCHEDULES", "AdamW", "Muon", "TriangularSchedule", "warmup_cosine"]
