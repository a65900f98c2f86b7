"""What TensorFlow writes: SavedModel, and LiteRT through its converter."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mixers.export.job import Job
from keras_mixers.export.metadata import NAME, append_metadata
from keras_mixers.export.shrinking import shrink


def write_saved_model(model: keras.Model, job: Job, path: Path | None = None) -> None:
    """Writes a SavedModel with one signature, `image` to what the network gives."""
    path = path or job.target
    archive = keras.export.ExportArchive()
    archive.track(model)
    image = tf.TensorSpec(job.input_shape, model.inputs[0].dtype, name="image")
    archive.add_endpoint("serve", lambda image: {job.output: model(image, training=False)}, input_signature=[image])
    archive.write_out(str(path), verbose=False)
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / NAME).write_text(json.dumps(job.metadata))


def open_saved_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the signature as a function of arrays."""
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda images: next(iter(serve(image=tf.constant(images)).values())).numpy()


def write_litert(model: keras.Model, job: Job) -> None:
    """Writes a .tflite file of builtin operations."""
    saved = job.folder / "saved_model"
    write_saved_model(model, job, saved)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if job.quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.quantization == "int8":
        converter.representative_dataset = lambda: ([images] for images in job.representative())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if job.integer_input:
            converter.inference_input_type = tf.uint8 if job.raw else tf.int8
        if job.integer_output:
            converter.inference_output_type = tf.int8
    network = converter.convert()
    if job.quantization in ("dynamic", "int8"):
        network = shrink(network)
    job.target.write_bytes(network)
    append_metadata(job.target, job.metadata)
