"""What a short recipe may have beside the papers': patches that are whitened, small images first, Muon."""

from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from small_run import RECIPE, assert_same_curve, train

import keras_mixers
from keras_mixers.data import Images
from keras_mixers.models import ImageSpec
from keras_mixers.training.prepare import whiten_patches


def test_whitened_patches_have_channels_of_mean_0_and_variance_1(rng):
    """Colours that go together, as in photographs, and neighbours that do."""
    grey = rng.normal(size=(300, 4, 4, 1)).repeat(2, axis=1).repeat(2, axis=2)
    pixels = np.clip(128 + 40 * grey + 20 * rng.normal(size=(300, 8, 8, 3)), 0, 255).astype("uint8")
    source = Images(tf.data.Dataset.from_tensor_slices((pixels, np.zeros(300, int))), 300, ("a",))
    statistics = ImageSpec(8, mean=(0.5, 0.4, 0.6), std=(0.2, 0.25, 0.3))
    model = keras_mixers.SplitMixerI(12, 1, data_format="channels_last")
    whiten_patches(model, source, statistics, seed=1)
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in model.get_layer("patch_embed").convolution.weights)
    inputs = (pixels / 255 - statistics.mean) / statistics.std
    patches = inputs.reshape(300, 4, 2, 4, 2, 3).swapaxes(2, 3).reshape(-1, 12)
    channels = patches @ kernel.reshape(12, 12) + bias
    np.testing.assert_allclose(channels.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(channels.var(0), 1, atol=0.02)
    before = np.linalg.cond(np.cov(patches, rowvar=False))
    directions = np.linalg.lstsq(patches - patches.mean(0), channels, rcond=None)[0]
    assert before > 20
    np.testing.assert_allclose(directions, kernel.reshape(12, 12), atol=1e-3)


def test_muon_learns_and_a_resumed_run_has_the_same_curve(tmp_path):
    recipe = replace(RECIPE, optimizer="muon", augmentation=replace(RECIPE.augmentation, flip="alternating"))
    whole = train(tmp_path / "whole", recipe)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    broken = tmp_path / "whole" / "checkpoints"
    for path in broken.glob("epoch_0004*"):
        path.unlink()
    assert_same_curve(train(tmp_path / "whole", recipe, resume=True), whole)
