"""A training run of seconds: 40 drawn images of 8 x 8 pixels in three classes, which a small network learns."""

import signal
import time

import keras
import numpy as np
import tensorflow as tf

from keras_mixers.data import Augmentation, Images
from keras_mixers.models import ImageSpec
from keras_mixers.training import Recipe, fit

CLASSES = ("red", "green", "blue")
RECIPE = Recipe(
    "splitmixer_i_256_8",
    "folder",
    ImageSpec(8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    Augmentation(flip=True, random_erasing=0.25),
    model_arguments={"dim": 8, "blocks": 1, "kernel_size": 3},
    epochs=4,
    batch_size=16,
    learning_rate=0.02,
)


def images(count=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    pixels = rng.integers(0, 120, (count, 8, 8, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return Images(tf.data.Dataset.from_tensor_slices((pixels.astype("uint8"), labels)), count, CLASSES)


def train(directory, recipe=RECIPE, **arguments):
    arguments = {"train_images": images(), "test_images": images(20, seed=1), "verbose": 0, **arguments}
    return fit(recipe, output_dir=directory, **arguments)


class BreakOff(keras.callbacks.Callback):
    """Raises in the given epoch, before the given batch, or sends signals to this process."""

    def __init__(self, epoch, batch, *signals):
        super().__init__()
        self.place, self.signals = (epoch, batch), signals

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            self.act()

    def act(self):
        for each in self.signals:
            signal.raise_signal(each)
            time.sleep(0.1)  # until it is handled: a busy system may deliver it late, and two at once as one
        if not self.signals:
            raise KeyboardInterrupt


def assert_same_weights(model, expected, rtol=1e-4, atol=1e-5):
    for weight, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=rtol, atol=atol)


def assert_same_curve(run, expected, tolerance=1e-5):
    for row, other in zip(run.history, expected.history, strict=True):
        for name in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            np.testing.assert_allclose(row[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)
