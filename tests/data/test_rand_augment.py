"""Each operation against Pillow, which the RandAugment of torchvision and of timm call for images of that library."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise, scenes
from PIL import Image, ImageEnhance, ImageOps

from keras_mixers.data.rand_augment import Operation, RandAugment, in_parts, timm_operations, torchvision_operations

pytestmark = pytest.mark.backend_independent

OPERATIONS = torchvision_operations()
FILL = (125, 123, 114)
TIMM_OPERATIONS = timm_operations(FILL)


def moved(*coefficients, method=Image.Resampling.NEAREST, fill=None):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, method, fillcolor=fill)


def moved_smoothly(*coefficients):
    return moved(*coefficients, method=Image.Resampling.BILINEAR, fill=FILL)


# Shears are about the centre of the top left pixel, Pillow about its corner: hence half the amount.
GEOMETRY = {
    "shear_x": lambda amount: moved(1, amount, -amount / 2, 0, 1, 0),
    "shear_y": lambda amount: moved(1, 0, 0, amount, 1, -amount / 2),
    "translate_x": lambda amount: moved(1, 0, -amount, 0, 1, 0),
    "translate_y": lambda amount: moved(1, 0, 0, 0, 1, -amount),
    "rotate": lambda amount: lambda image: image.rotate(amount, Image.Resampling.NEAREST),
}
COLORS = {
    "brightness": lambda amount: lambda image: ImageEnhance.Brightness(image).enhance(1 + amount),
    "color": lambda amount: lambda image: ImageEnhance.Color(image).enhance(1 + amount),
    "contrast": lambda amount: lambda image: ImageEnhance.Contrast(image).enhance(1 + amount),
    "sharpness": lambda amount: lambda image: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "autocontrast": lambda amount: ImageOps.autocontrast,
}
TABLES = {
    "identity": lambda amount: lambda image: image,
    "posterize": lambda amount: lambda image: ImageOps.posterize(image, int(amount)),
    "solarize": lambda amount: lambda image: ImageOps.solarize(image, amount),
    "equalize": lambda amount: ImageOps.equalize,
}
# What timm does in another way.
TIMM_GEOMETRY = {
    "shear_x": lambda amount: moved_smoothly(1, amount, 0, 0, 1, 0),
    "shear_y": lambda amount: moved_smoothly(1, 0, 0, amount, 1, 0),
    "translate_x": lambda amount: moved_smoothly(1, 0, -amount, 0, 1, 0),
    "translate_y": lambda amount: moved_smoothly(1, 0, 0, 0, 1, -amount),
    "rotate": lambda amount: lambda image: image.rotate(amount, Image.Resampling.BILINEAR, fillcolor=FILL),
}
TIMM_TABLES = {
    "posterize": TABLES["posterize"],
    "solarize": TABLES["solarize"],
    "equalize": TABLES["equalize"],
    "invert": lambda amount: ImageOps.invert,
    "solarize_add": lambda amount: (
        lambda image: image.point([min(255, level + int(amount)) if level < 128 else level for level in range(256)] * 3)
    ),
}


@pytest.fixture(params=["noise", "scenes", "flat", "cifar10"])
def pixels(request):
    """Images (n, 32, 32, 3): of noise, drawn, of one or two colours, and real ones."""
    if request.param == "cifar10":
        return request.getfixturevalue("cifar10")
    flat = np.full((3, 32, 32, 3), (0, 77, 255), np.uint8)
    flat[1, 5:9], flat[2, :, 7:] = (3, 78, 200), 128
    return {"noise": noise(24, 32), "scenes": scenes(24, 32), "flat": flat}[request.param]


def both(name, reference, pixels, magnitude, sign, operations=OPERATIONS):
    """(our images, Pillow's) as integers, at a magnitude from 0 to 30."""
    operation = operations[name]
    sign = sign if operation.signed else 1
    amounts = operation.amount(tf.fill([len(pixels)], magnitude / 30), 32.0) * sign
    ours = operation.apply(tf.constant(pixels), amounts)
    assert ours.dtype == tf.uint8
    change = reference(float(amounts[0]))
    pillow = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
    return ours.numpy().astype(int), pillow.astype(int)


def at_all_magnitudes(test):
    """A shear of 0.05 or 0.3 would take pixels from halfway between two others, either of which is the nearest."""
    test = pytest.mark.parametrize("magnitude", [0, 7, 12, 29])(test)
    return pytest.mark.parametrize("sign", [-1, 1])(test)


def test_these_are_the_operations_of_torchvision():
    assert {*GEOMETRY} | {*COLORS} | {*TABLES} == {*OPERATIONS}
    assert len(OPERATIONS) == 14


@at_all_magnitudes
@pytest.mark.parametrize("name", GEOMETRY)
def test_moves_equal_pillow(pixels, name, magnitude, sign):
    ours, pillow = both(name, GEOMETRY[name], pixels, magnitude, sign)
    differ = (ours != pillow).any(axis=(0, 3))
    # Pillow steps through a rotated row in fixed point: a pixel or two that lie just between two others turn out so.
    assert differ.sum() <= (2 if name == "rotate" else 0)


@at_all_magnitudes
@pytest.mark.parametrize("name", COLORS)
def test_colors_equal_pillow_within_a_level(pixels, name, magnitude, sign):
    ours, pillow = both(name, COLORS[name], pixels, magnitude, sign)
    assert np.abs(ours - pillow).max() <= 1


@at_all_magnitudes
@pytest.mark.parametrize("name", TABLES)
def test_tables_equal_pillow_exactly(pixels, name, magnitude, sign):
    ours, pillow = both(name, TABLES[name], pixels, magnitude, sign)
    np.testing.assert_array_equal(ours, pillow)


def test_these_are_the_operations_of_timm():
    assert {*TIMM_GEOMETRY} | {*COLORS} | {*TIMM_TABLES} == {*TIMM_OPERATIONS}
    assert len(TIMM_OPERATIONS) == 15


@at_all_magnitudes
@pytest.mark.parametrize("name", TIMM_GEOMETRY)
def test_moves_of_timm_equal_pillow_within_a_level(pixels, name, magnitude, sign):
    ours, pillow = both(name, TIMM_GEOMETRY[name], pixels, magnitude, sign, TIMM_OPERATIONS)
    differ = (np.abs(ours - pillow) > 1).any(axis=(0, 3))
    assert differ.sum() <= (2 if name == "rotate" else 0)


@pytest.mark.parametrize("magnitude", [0, 7, 12, 27, 30])
@pytest.mark.parametrize("name", TIMM_TABLES)
def test_tables_of_timm_equal_pillow_exactly(pixels, name, magnitude):
    ours, pillow = both(name, TIMM_TABLES[name], pixels, magnitude, 1, TIMM_OPERATIONS)
    np.testing.assert_array_equal(ours, pillow)


def test_amounts_of_timm_at_its_m9():
    amounts = {name: float(o.amount(tf.constant([27 / 30]), 32.0)[0]) for name, o in TIMM_OPERATIONS.items()}
    expected = {"shear_x": 0.27, "shear_y": 0.27, "translate_x": 12.96, "translate_y": 12.96, "rotate": 27,
                "brightness": 0.81, "color": 0.81, "contrast": 0.81, "sharpness": 0.81, "posterize": 1,
                "solarize": 26, "solarize_add": 99}  # fmt: skip
    assert amounts == pytest.approx({**dict.fromkeys(TIMM_OPERATIONS, 0), **expected})


def test_amounts_at_magnitude_12_of_32_pixels():
    amounts = {name: float(o.amount(tf.constant([12 / 30]), 32.0)[0]) for name, o in OPERATIONS.items()}
    expected = {"shear_x": 0.12, "shear_y": 0.12, "translate_x": 5, "translate_y": 5, "rotate": 12, "brightness": 0.36,
                "color": 0.36, "contrast": 0.36, "sharpness": 0.36, "posterize": 6, "solarize": 153}  # fmt: skip
    assert amounts == pytest.approx({**dict.fromkeys(OPERATIONS, 0), **expected})


def test_amounts_at_every_magnitude():
    def amounts(name, size=224.0):
        return OPERATIONS[name].amount(tf.range(31, dtype=tf.float32) / 30, size).numpy()

    bins = np.arange(31)
    np.testing.assert_array_equal(amounts("posterize"), 8 - np.round(bins / (30 / 4)))
    np.testing.assert_array_equal(amounts("translate_x"), np.trunc(np.linspace(0, 150 / 331 * 224, 31)))
    np.testing.assert_allclose(amounts("solarize"), np.linspace(255, 0, 31), atol=1e-4)
    np.testing.assert_allclose(amounts("shear_x"), np.linspace(0, 0.3, 31), atol=1e-6)
    np.testing.assert_allclose(amounts("rotate"), np.linspace(0, 30, 31), atol=1e-5)
    np.testing.assert_allclose(amounts("sharpness"), np.linspace(0, 0.9, 31), atol=1e-6)


def test_half_of_the_operations_have_a_sign():
    unsigned = {name for name, operation in OPERATIONS.items() if not operation.signed}
    assert unsigned == {"identity", "posterize", "solarize", "autocontrast", "equalize"}


def spy(rand_augment, amount=lambda magnitude, size: magnitude, signed=True):
    """Let operation i write i and its amount into the image: pixel (round) of two float channels."""

    def write(i):
        def apply(images, amounts):
            step = tf.stack([tf.fill([tf.shape(images)[0]], float(i)), amounts], axis=1)[:, None, None, :]
            return tf.concat([images[:, :, 1:], tf.broadcast_to(step, (tf.shape(images)[0], 1, 1, 2))], axis=2)

        return Operation(apply, amount, signed)

    rand_augment.operations = [write(i) for i in range(14)]
    return rand_augment


def drawn(count, rounds, magnitude, std=0.0, seed=(3, 4), **arguments):
    """(operation, amount) of each image and round, (count, rounds, 2)."""
    start = tf.zeros((count, 1, rounds, 2))
    return spy(RandAugment(rounds, magnitude, std), **arguments)(start, seed).numpy()[:, 0]


def test_operations_and_signs_are_drawn_evenly_for_each_image():
    steps = drawn(14_000, 2, 12)
    choices, amounts = steps[..., 0].astype(int), steps[..., 1]
    for round_choices in choices.T:
        assert np.abs(np.bincount(round_choices, minlength=14) - 1000).max() < 5 * math.sqrt(1000)
    assert (choices[:, 0] == choices[:, 1]).mean() == pytest.approx(1 / 14, abs=0.01)  # with replacement
    np.testing.assert_allclose(np.abs(amounts), 12 / 30, rtol=1e-6)
    assert (amounts > 0).mean() == pytest.approx(0.5, abs=0.02)


def test_magnitude_varies_by_its_standard_deviation_within_the_scale():
    strength = drawn(5000, 1, 15, std=1.5, signed=False)[..., 1] * 30
    assert strength.mean() == pytest.approx(15, abs=0.15)
    assert strength.std() == pytest.approx(1.5, abs=0.1)
    strength = drawn(500, 1, 29, std=20, signed=False)[..., 1] * 30
    assert (strength.min(), strength.max()) == (0, 30)


def test_operations_are_carried_out_with_their_probability():
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 8, 8, 3)).astype("uint8")
    never, half, always = (RandAugment(1, 30, probability=share)(pixels, (1, 2)).numpy() for share in (0, 0.5, 1))
    np.testing.assert_array_equal(never, pixels)
    np.testing.assert_array_equal(always, RandAugment(1, 30)(pixels, (1, 2)))
    changed, changes = ((found != pixels).any(axis=(1, 2, 3)) for found in (half, always))
    np.testing.assert_array_equal(half, np.where(changed[:, None, None, None], always, pixels))
    assert 0.46 < changed.sum() / changes.sum() < 0.54


def test_the_seed_decides():
    pixels = tf.constant(noise(64, 32))
    rand_augment = RandAugment(2, 12)
    first = rand_augment(pixels, (1, 2)).numpy()
    tf.random.uniform([5])
    np.testing.assert_array_equal(rand_augment(pixels, (1, 2)), first)
    assert (rand_augment(pixels, (1, 3)).numpy() != first).any()


@pytest.mark.parametrize("count", [1, 2])
def test_operations_that_no_image_drew(count):
    pixels = tf.constant(noise(count, 32))
    for seed in range(5):
        assert RandAugment(1, 30)(pixels, (0, seed)).shape == (count, 32, 32, 3)


def test_images_keep_their_places():
    pixels = tf.constant(np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8))
    changed = in_parts(pixels, tf.constant([1, 0, 1, 1, 0]), [lambda part, _: part, lambda part, _: part + 100])
    assert changed.numpy()[:, 0, 0, 0].tolist() == [100, 1, 102, 103, 4]


def test_keras_float16_policy_changes_nothing(request):
    pixels = tf.constant(noise(28, 32))
    expected = RandAugment(2, 12)(pixels, (1, 2))
    request.addfinalizer(functools.partial(keras.config.set_dtype_policy, keras.config.dtype_policy()))
    keras.config.set_dtype_policy("mixed_float16")
    np.testing.assert_array_equal(RandAugment(2, 12)(pixels, (1, 2)), expected)
