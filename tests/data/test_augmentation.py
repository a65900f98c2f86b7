import math

import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise

from keras_mixers.data import Augmentation
from keras_mixers.data.augmentation import (
    AugmentBatch,
    color_jitter,
    masks,
    mix,
    normalize_batch,
    random_erasing,
    smooth,
)
from keras_mixers.data.crops import random_translation
from keras_mixers.models import ImageSpec

pytestmark = pytest.mark.backend_independent

PLAIN = ImageSpec(6, (0.0,) * 3, (1 / 255,) * 3)  # pixels stay from 0 to 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_scale": (0, 1)}, "crop_scale must be .* with 0 < smallest <= largest <= 1, or None, got .*0, 1"),
        ({"crop_scale": (0.5, 0.4)}, "crop_scale must be"),
        ({"crop_scale": (0.5, 1.1)}, "crop_scale must be"),
        ({"crop_scale": 0.5}, "crop_scale must be"),
        ({"crop_ratio": (0, 1)}, "crop_ratio must be"),
        ({"resize": 0}, "resize must be at least 1 pixel, or None, got resize=0"),
        ({"resize": 230, "crop_scale": (0.1, 1)}, "resize and crop_scale are two ways to crop: set one"),
        ({"translate": -1}, "translate must be a whole number of pixels, 0 or more, got translate=-1"),
        ({"translate": 0.5}, "translate must be"),
        ({"flip": "both"}, "flip must be True, False or \"alternating\", got flip='both'"),
        ({"rand_augment": (0, 12)}, "rand_augment must be .* n at least 1 and m from 0 to 30"),
        ({"rand_augment": (2, 31)}, r"rand_augment must be .*got rand_augment=\(2, 31\)"),
        ({"rand_augment": (2, -1)}, "rand_augment must be"),
        ({"rand_augment": 2}, "rand_augment must be"),
        ({"rand_augment_std": -1}, "rand_augment_std must be 0 or more"),
        ({"rand_augment_probability": 2}, "rand_augment_probability must be from 0 to 1"),
        ({"rand_augment_operations": "pil"}, 'rand_augment_operations must be "torchvision" or "timm"'),
        ({"color_jitter": 1.2}, "color_jitter must be from 0 to 1, got color_jitter=1.2"),
        ({"random_erasing": -0.1}, "random_erasing must be from 0 to 1"),
        ({"erasing_fill": "black"}, 'erasing_fill must be "mean" or "noise", got erasing_fill=\'black\''),
        ({"mixup": -1}, "mixup must be"),
        ({"cutmix": -1}, "cutmix must be"),
        ({"mix_probability": 2}, "mix_probability must be from 0 to 1"),
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1"),
    ],
)
def test_field_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**arguments)


def test_by_default_images_are_only_normalised():
    pixels, labels = noise(4, 8), np.array([0, 2, 1, 2])
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    augment = AugmentBatch(Augmentation(), 3, ImageSpec(8, mean, std))
    images, one_hot = augment(tf.constant(pixels), tf.constant(labels), (1, 2))
    np.testing.assert_allclose(images, (pixels / 255 - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(one_hot, np.eye(3)[labels])


def test_half_of_the_images_are_mirrored():
    pixels = noise(1000, 4)
    images, _ = AugmentBatch(Augmentation(flip=True), 2, PLAIN)(tf.constant(pixels), [0] * 1000, (1, 2))
    flipped = np.rint(images)
    mirrored = (flipped == pixels[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (flipped == pixels).all(axis=(1, 2, 3))).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.06)


def test_translation_moves_each_image_and_reflects_its_edges():
    pixels = noise(400, 6)
    moved = random_translation(tf.constant(pixels), 2, (1, 2)).numpy()
    padded = np.pad(pixels, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    shifts = [(y, x) for y in range(5) for x in range(5)]
    candidates = np.stack([padded[:, y : y + 6, x : x + 6] for y, x in shifts])
    places = (candidates == moved).all(axis=(2, 3, 4))
    assert (places.sum(axis=0) == 1).all()
    assert places.sum(axis=1).min() >= 400 / 25 / 3


def test_translation_and_given_mirrors_reach_the_batch():
    pixels, labels = tf.constant(noise(4, 6)), tf.zeros(4, tf.int64)
    augment = AugmentBatch(Augmentation(flip="alternating"), 2, PLAIN)
    images, _ = augment(pixels, labels, (1, 2), tf.constant([True, False, True, False]))
    expected = pixels.numpy().copy()
    expected[::2] = expected[::2, :, ::-1]
    np.testing.assert_array_equal(images, expected)
    moved, _ = AugmentBatch(Augmentation(translate=2), 2, PLAIN)(pixels, labels, (1, 2))
    assert (moved.numpy() != pixels.numpy()).any()


def test_jitter_scales_by_factors_in_range():
    grey = tf.fill((2000, 2, 2, 3), tf.constant(100, tf.uint8))  # contrast and saturation leave one grey as it is
    levels = color_jitter(grey, 0.2, (1, 2)).numpy()[:, 0, 0].astype(int)
    assert np.ptp(levels, axis=1).max() <= 1
    assert 79 <= levels.min() <= 81 < 119 <= levels.max() <= 120
    assert levels.mean() == pytest.approx(99.5, abs=1.5)


def test_jitter_changes_contrast_and_saturation():
    pixels = tf.constant(noise(200, 8))
    change = color_jitter(pixels, 0.4, (1, 2)).numpy().astype(float)
    original = pixels.numpy().astype(float)
    saturation = np.ptp(change, axis=-1).mean(axis=(1, 2)) / np.ptp(original, axis=-1).mean(axis=(1, 2))
    assert saturation.min() < 0.6 < 1.2 < saturation.max()


def test_erased_areas_are_in_range():
    images = tf.ones((2000, 32, 32, 3))
    erased = random_erasing(images, 1.0, "mean", (1, 2)).numpy() == 0
    assert (erased == erased[..., :1]).all()
    area = erased[..., 0].sum(axis=(1, 2))
    height, width = erased[..., 0].any(axis=2).sum(axis=1), erased[..., 0].any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(area, height * width)  # rectangles
    assert ((height + 0.5) * (width + 0.5) >= 0.02 * 1024).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.33 * 1024).all()
    assert ((width + 0.5) / (height - 0.5) >= 0.3).all()
    assert ((width - 0.5) / (height + 0.5) <= 3.3).all()


def test_erasing_has_its_probability_and_fill():
    images = tf.fill((2000, 16, 16, 3), 7.0)
    changed = random_erasing(images, 0.25, "noise", (1, 2)).numpy()
    erased = (changed != 7).any(axis=(1, 2, 3))
    assert erased.mean() == pytest.approx(0.25, abs=0.04)
    filling = changed[changed != 7]
    assert filling.mean() == pytest.approx(0, abs=0.02)
    assert filling.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(random_erasing(images, 0.0, "noise", (1, 2)), images)


def test_masks_are_zero_inside_the_boxes():
    mask = masks(tf.constant([[1, 2, 3, 1], [-2, 3, 4, 9], [1, 1, 0, 0]]), 5, 6).numpy()[..., 0]
    expected = np.ones((3, 5, 6))
    expected[0, 1:4, 2:3] = 0
    expected[1, 0:2, 3:6] = 0
    np.testing.assert_array_equal(mask, expected)


mix_as_a_graph = tf.function(mix)


def mixed(seed, mixup=0.0, cutmix=0.0, probability=1.0, size=16):
    """(share of each pixel that is the image's own, share of the label) of a batch of two, from `mix`."""
    images = tf.concat([tf.ones((1, size, size, 3)), tf.zeros((1, size, size, 3))], axis=0)
    images, labels = mix_as_a_graph(images, tf.eye(2), mixup, cutmix, probability, tf.constant([7, seed]))
    np.testing.assert_allclose(images[1], 1 - images[0], atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(labels[1], 1 - labels[0], atol=1e-6)
    assert (images[0].numpy() == images[0].numpy()[..., :1]).all()
    return images[0].numpy()[..., 0], float(labels[0, 0])


@pytest.mark.parametrize("arguments", [{"mixup": 0.5}, {"cutmix": 0.5}, {"mixup": 0.5, "cutmix": 1.0}])
def test_label_shares_are_the_shares_of_the_pixels(arguments):
    for seed in range(40):
        share, label_share = mixed(seed, **arguments)
        assert label_share == pytest.approx(share.mean(), abs=1e-6)


def test_mixup_shares_are_beta_distributed():
    shares = []
    for seed in range(400):
        share, label_share = mixed(seed, mixup=0.5, size=2)
        assert np.ptp(share) == 0
        shares.append(label_share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(1 / 8, abs=0.02)  # 1 / (4 (2 alpha + 1))


def test_cutmix_takes_one_rectangle_even_at_the_border():
    areas = []
    for seed in range(100):
        share, _ = mixed(seed, cutmix=1.0)
        cut = share == 0
        assert (cut | (share == 1)).all()
        assert cut.sum() == cut.any(axis=0).sum() * cut.any(axis=1).sum()
        areas.append(cut.mean())
    assert max(areas) > 0.5 > 0.1 > min(areas)


def test_one_of_the_two_for_a_batch():
    shares = [mixed(seed, mixup=1.0, cutmix=1.0)[0] for seed in range(100)]
    are_mixup = [0 < share.min() == share.max() < 1 for share in shares]
    are_cutmix = [bool(np.isin(share, [0, 1]).all()) for share in shares]
    assert all(a != b for a, b in zip(are_mixup, are_cutmix, strict=True))
    assert 35 < sum(are_mixup) < 65


def test_mix_probability():
    untouched = [mixed(seed, mixup=1.0, probability=0.3)[1] == 1 for seed in range(200)]
    assert np.mean(untouched) == pytest.approx(0.7, abs=0.1)
    assert all(mixed(seed, cutmix=1.0, probability=0.0)[1] == 1 for seed in range(5))


def test_label_smoothing():
    labels = smooth(tf.eye(10)[:2], 0.1).numpy()
    np.testing.assert_allclose(labels[0], [0.91] + [0.01] * 9, rtol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)


def test_normalize_is_per_colour():
    pixels = tf.constant([[[[0, 128, 255]]]], tf.uint8)
    expected = [(0 - 0.5) / 0.1, (128 / 255 - 0.4) / 0.2, (1 - 0.3) / 0.3]
    found = normalize_batch(pixels, ImageSpec(1, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)))
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-5)


def test_steps_use_different_numbers():
    """The seed's parts: a flip says nothing about erasing."""
    pixels = tf.constant(np.tile(np.array([60, 180], np.uint8)[None, None, :, None], (400, 2, 4, 3)))
    recipe = Augmentation(flip=True, random_erasing=0.5)
    images, _ = AugmentBatch(recipe, 2, ImageSpec(4, (0.5,) * 3, (1.0,) * 3))(pixels, tf.zeros(400, tf.int64), (1, 2))
    erased, corner = (images.numpy() == 0).any(axis=(1, 2, 3)), images.numpy()[:, 0, 0, 0]
    assert math.isclose(erased[corner > 0].mean(), erased[corner < 0].mean(), abs_tol=0.15)
