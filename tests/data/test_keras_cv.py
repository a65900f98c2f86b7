"""KerasCV's layers compute what the operations of RandAugment do, pixel for pixel; see test_rand_augment for Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise, scenes

from keras_mixers.data.rand_augment import torchvision_operations

keras_cv = pytest.importorskip("keras_cv", reason="KerasCV, with which operations are compared, is not installed")
pytestmark = pytest.mark.backend_independent

LEVELS = (0, 255)


def floats(change):
    """Let a layer change floats, of which whole numbers are kept, as uint8 images have them."""
    return lambda images, amounts: tf.cast(
        tf.clip_by_value(change(tf.cast(images, tf.float32), amounts) + 1e-3, 0, 255), tf.uint8
    )


def each(amounts):
    return amounts[:, None, None, None]


def shear(**sides):
    layer = keras_cv.layers.RandomShear(0.3, 0.3, interpolation="nearest", fill_mode="constant")
    return lambda images, amounts: layer.augment_images(
        images, {f"shear_{axis}": amounts[:, None] if own else None for axis, own in sides.items()}
    )


def translate(width, height):
    layer = keras_cv.layers.RandomTranslation(0.5, 0.5, interpolation="nearest", fill_mode="constant")
    return lambda images, pixels: layer.augment_images(
        images,
        {
            "width_translations": width * pixels[:, None] / images.shape[2],
            "height_translations": height * pixels[:, None] / images.shape[1],
        },
    )


LAYERS = {
    "shear_x": lambda: shear(x=True, y=False),
    "shear_y": lambda: shear(x=False, y=True),
    "translate_x": lambda: translate(1, 0),
    "translate_y": lambda: translate(0, 1),
    "color": lambda: floats(
        lambda images, amounts: keras_cv.layers.RandomColorDegeneration(1.0).augment_images(images, each(-amounts))
    ),
    "sharpness": lambda: floats(
        lambda images, amounts: keras_cv.layers.RandomSharpness(1.0, LEVELS).augment_images(images, each(-amounts))
    ),
    "solarize": lambda: floats(
        lambda images, thresholds: keras_cv.layers.Solarization(LEVELS).augment_images(
            images, {"thresholds": each(thresholds), "additions": 0.0}
        )
    ),
    "autocontrast": lambda: floats(lambda images, _: keras_cv.layers.AutoContrast(LEVELS).augment_images(images)),
}


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_kerascvs_layer(name, size, rng):
    flat = np.full((2, size, size, 3), (0, 77, 255), np.uint8)
    pixels = tf.constant(np.concatenate([noise(20, size), scenes(20, size), flat]))
    operation = torchvision_operations()[name]
    signs = rng.choice([-1.0, 1.0], len(pixels)) if operation.signed else 1.0
    strengths = tf.constant(rng.uniform(0, 1, len(pixels)), tf.float32)
    amounts = tf.cast(operation.amount(strengths, float(size)) * signs, tf.float32)
    np.testing.assert_array_equal(operation.apply(pixels, amounts), LAYERS[name]()(pixels, amounts))
