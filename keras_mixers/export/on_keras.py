"""What Keras writes: a .keras file, which Keras alone can load."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_mixers.export.job import Job
from keras_mixers.export.metadata import append_metadata


def write_keras(model: keras.Model, job: Job) -> None:
    """Writes a .keras file."""
    model.save(job.target)
    append_metadata(job.target, job.metadata)


def open_keras(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Opens a .keras file in Keras's safe mode."""
    model = keras.models.load_model(path, compile=False)
    return lambda images: keras.ops.convert_to_numpy(model.predict_on_batch(images))
