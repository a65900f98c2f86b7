"""What a user's type checker sees of the public interface: for `mypy`, which CI runs, and never executed."""

from typing import assert_type

import numpy as np

import keras_mixers
from keras_mixers import data, export, inference, models, profiling, training, weights


def uses() -> None:
    assert_type(keras_mixers.list_models("splitmixer_*"), list[str])
    assert_type(keras_mixers.get_preset("splitmixer_i_256_8"), models.Preset)
    assert_type(keras_mixers.preprocess_input([np.zeros((8, 8, 3))], "convmixer_768_32"), np.ndarray)
    assert_type(keras_mixers.profile(keras_mixers.SplitMixerI(256, 8)), profiling.Profile)
    assert_type(keras_mixers.export_model(keras_mixers.ConvMixer(256, 8), "model.tflite"), export.ExportReport)

    images = data.load_folder("photos")
    assert_type(images, data.Images)
    assert_type(data.load_folders("photos"), dict[str, data.Images])
    spec = models.ImageSpec(224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    data.train_batches(images, 32, spec, augmentation=data.Augmentation())

    recipe = training.get_recipe("cifar10_smoke")
    assert_type(recipe, training.Recipe)
    assert_type(recipe.change({"epochs": 3}), training.Recipe)
    run = training.fit(recipe, output_dir="runs/smoke")
    assert_type(run, training.Run)
    assert_type(inference.predict_images(run.model, ["dog.jpg"]), np.ndarray)
    assert_type(inference.evaluate_images(run.model, images, flip=True), dict[str, float])
    assert_type(weights.packaged_weights("splitmixer_i_256_8"), dict[str, str])

    # Mistakes that it has to find.
    keras_mixers.list_models(3)  # type: ignore[arg-type]
    keras_mixers.SplitMixerI(dim=256)  # type: ignore[call-arg]
    training.fit(recipe)  # type: ignore[call-arg]
    training.Recipe("splitmixer_i_256_8", "cifar10", data.Augmentation())  # type: ignore[arg-type]
    data.load_folder("photos", "many")  # type: ignore[arg-type]
