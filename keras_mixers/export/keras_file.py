"""Keras's own .keras files, of plain layers, which Keras loads without this library."""

from pathlib import Path

import keras

from keras_mixers.export.format import Format, Job, Run


class KerasFile(Format):
    """A .keras file, loaded in Keras's safe mode."""

    title = "Keras"
    suffix = ".keras"

    def write(self, model: keras.Model, job: Job) -> None:
        model.save(job.target)
        self.append_metadata(job.target, job.metadata)

    def open(self, path: Path) -> Run:
        model = keras.models.load_model(path, compile=False)
        return lambda images: keras.ops.convert_to_numpy(model.predict_on_batch(images))
