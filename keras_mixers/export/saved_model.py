"""SavedModel, TensorFlow's format: a folder, run by TensorFlow."""

import json
from pathlib import Path

import keras

from keras_mixers.export.format import METADATA, Format, Job, Run


class SavedModel(Format):
    """A folder with one signature, whose input is `image`."""

    title = "SavedModel"
    backend = "tensorflow"
    packages = ("tensorflow",)
    extra = "litert"

    def write(self, model: keras.Model, job: Job) -> None:
        save(model, job, job.target)
        extra = job.target / "assets.extra"
        extra.mkdir()
        (extra / METADATA).write_text(json.dumps(job.metadata))

    def open(self, path: Path) -> Run:
        import tensorflow as tf

        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        return lambda images: next(iter(serve(image=tf.constant(images)).values())).numpy()

    def read_metadata(self, path: Path) -> str:
        return (path / "assets.extra" / METADATA).read_text()


def save(model: keras.Model, job: Job, path: Path) -> None:
    """Writes the folder, without metadata."""
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    image = tf.TensorSpec(job.input_shape(model), model.inputs[0].dtype, name="image")
    archive.add_endpoint("serve", lambda image: {job.output: model(image, training=False)}, input_signature=[image])
    archive.write_out(str(path), verbose=False)
