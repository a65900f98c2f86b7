import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise
from PIL import Image

from keras_mixers.data import Augmentation, Images, eval_batches, load_folder, train_batches
from keras_mixers.models import ImageSpec

pytestmark = pytest.mark.backend_independent

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
SPEC = ImageSpec(8, MEAN, STD)
EVERYTHING = Augmentation(
    crop_scale=(0.3, 1),
    translate=2,
    flip="alternating",
    rand_augment=(1, 12),
    rand_augment_std=1.5,
    color_jitter=0.2,
    random_erasing=0.25,
    erasing_fill="noise",
    mixup=0.5,
    cutmix=0.5,
    label_smoothing=0.1,
)


def train(images, size=8, augmentation=None, **arguments):
    return train_batches(images, 4, dataclasses.replace(SPEC, size=size), augmentation=augmentation, **arguments)


def first_pixels(batches):
    """The numbers of the images in an epoch, from pixel (0, 0); see the fixture."""
    return [int(np.round((x * STD[0] + MEAN[0]) * 255)) for x in np.concatenate([x[:, 0, 0, 0] for x, _ in batches])]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def epoch(batches):
    return [*batches.as_numpy_iterator()]


@pytest.mark.parametrize("size", [8, 6])  # the images' own size (crops of the batch), and another (crops of each image)
def test_the_seed_decides_over_two_epochs(images, size):
    first = train(images, size, EVERYTHING, seed=5)
    epochs = epoch(first), epoch(first)
    tf.random.uniform([7])  # Numbers that something else draws change nothing.
    keras.random.normal((3,))
    second = train(images, size, EVERYTHING, seed=5)
    for expected in epochs:
        tf.random.uniform([7])
        assert_same(epoch(second), expected)
    assert any((a != b).any() for (a, _), (b, _) in zip(*epochs, strict=True))
    other = epoch(train(images, size, EVERYTHING, seed=6))
    assert any((a != b).any() for (a, _), (b, _) in zip(epochs[0], other, strict=True))


@pytest.mark.parametrize("size", [8, 6])
def test_epochs_are_the_same_wherever_they_start(images, size):
    """Images of 11: 3 batches an epoch."""
    whole = epoch(train(images, size, EVERYTHING, epochs=range(4)))
    assert len(whole) == 12
    later = train(images, size, EVERYTHING, epochs=range(2, 4), first_batch=1)
    assert later.cardinality() == 5
    for _ in range(2):  # every iteration gives the same
        assert_same(epoch(later), whole[7:])
    numbers = [first_pixels(batches) for batches in (whole[:3], whole[3:6])] if size == 8 else [0, 1]
    assert numbers[0] != numbers[1]


def mirrored_by_number(batches):
    """Whether each image of an epoch is mirrored, by its number; see the fixture."""
    pixels = np.concatenate([x for x, _ in batches]) * STD + MEAN
    numbers = np.rint(np.minimum(pixels[:, 0, 0, 0], pixels[:, 0, -1, 0]) * 255).astype(int)
    return [bool(mirrored) for _, mirrored in sorted(zip(numbers, pixels[:, 0, 0, 0] > 0.5, strict=True))]


@pytest.mark.parametrize("size", [8, 6])
def test_alternating_flips_show_every_image_both_ways_in_two_epochs(size):
    pixels = np.zeros((40, 8, 8, 3), "uint8")
    pixels[:, :, :4], pixels[:, :, 4:] = np.arange(40)[:, None, None, None], 255
    images = Images(tf.data.Dataset.from_tensor_slices((pixels, np.arange(40) % 3)), 40, ("a", "b", "c"))
    batches = epoch(train(images, size, Augmentation(flip="alternating"), seed=3, epochs=range(4)))
    first, second, third, _ = (mirrored_by_number(batches[i : i + 10]) for i in range(0, 40, 10))
    assert 8 <= sum(first) <= 32
    assert second == [not mirrored for mirrored in first]
    assert third == first
    resumed = epoch(train(images, size, Augmentation(flip="alternating"), seed=3, epochs=range(1, 2)))
    assert_same(resumed, batches[10:20])


def test_translation_must_leave_a_part_of_the_image(images):
    with pytest.raises(ValueError, match="translate must be less than the image size, got translate=8 and size=8"):
        train(images, augmentation=Augmentation(translate=8))


@pytest.mark.parametrize("global_seed", [0, 3])
def test_numbered_epochs_do_not_depend_on_the_global_seed(images, global_seed):
    expected = epoch(train(images, augmentation=EVERYTHING, epochs=range(2)))
    tf.random.set_seed(global_seed)
    assert_same(epoch(train(images, augmentation=EVERYTHING, epochs=range(2))), expected)


@pytest.mark.parametrize("numbered", [True, False])
def test_an_epoch_is_a_new_order_of_all_images(images, numbered):
    batches = train(images, epochs=range(3) if numbered else None)
    read = sum((first_pixels(epoch(batches)) for _ in range(1 if numbered else 3)), [])
    epochs = [read[i : i + 11] for i in range(0, len(read), 11)]
    assert [sorted(numbers) for numbers in epochs] == [[*range(11)]] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_labels_stay_with_their_images(images):
    for batch in (epoch(train(images)), epoch(eval_batches(images, 4, SPEC))):
        labels = np.concatenate([np.argmax(y, axis=-1) for _, y in batch])
        np.testing.assert_array_equal(labels, np.array(first_pixels(batch)) % 3)


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
def test_batches_have_known_shapes_and_number_and_the_last_is_kept(images, augmentation):
    for batches in (train(images, augmentation=augmentation), eval_batches(images, 4, SPEC)):
        assert batches.cardinality() == 3
        x, y = batches.element_spec
        assert (x.shape.as_list(), x.dtype) == ([None, 8, 8, 3], tf.float32)
        assert (y.shape.as_list(), y.dtype) == ([None, 3], tf.float32)
        assert [(len(x), len(y)) for x, y in epoch(batches)] == [(4, 4), (4, 4), (3, 3)]


def test_images_of_the_right_size_are_not_resampled(images):
    pixels = np.stack([image for image, _ in images.examples.as_numpy_iterator()])
    evaluated = np.concatenate([x for x, _ in epoch(eval_batches(images, 4, SPEC))])
    np.testing.assert_allclose(evaluated, (pixels / 255 - MEAN) / STD, atol=1e-5)
    trained = [(x, x[0, 0, 0]) for batch, _ in epoch(train(images)) for x in batch]
    trained = np.stack([x for x, _ in sorted(trained, key=lambda pair: pair[1])])
    np.testing.assert_allclose(trained, (pixels / 255 - MEAN) / STD, atol=1e-5)


def test_evaluation_resizes_and_crops_the_centre_as_pillow_does():
    pixels = 64 + noise(3, 40)[:, :30] // 2  # No overshoots, which Pillow cuts off twice.
    images = Images(tf.data.Dataset.from_tensor_slices((pixels, np.zeros(3, int))), 3, ("a",))
    ((x, _),) = epoch(eval_batches(images, 3, ImageSpec(14, MEAN, STD, crop_fraction=0.7)))
    # 14 / 0.7 = 20, so 30 x 40 becomes 20 x 26, and the crop begins at (3, 6).
    resized = np.stack([np.asarray(Image.fromarray(image).resize((26, 20), Image.BICUBIC)) for image in pixels])
    expected = (resized[:, 3:17, 6:20] / 255 - MEAN) / STD
    assert np.abs((x - expected) * STD * 255).max() <= 1.01


def test_label_smoothing_and_mixing_reach_the_labels(images):
    smoothed = epoch(train(images, augmentation=Augmentation(label_smoothing=0.3)))[0][1]
    np.testing.assert_allclose(np.sort(smoothed), [[0.1, 0.1, 0.8]] * 4, rtol=1e-5)
    mixed = np.concatenate([y for _, y in epoch(train(images, augmentation=Augmentation(mixup=1.0)))])
    assert (mixed.max(axis=1) < 1).any()


def test_small_images_of_one_size_are_cached():
    reads = []

    def read(record):
        reads.append(int(record))
        return np.zeros((4, 4, 3), np.uint8)

    def source(shape):
        def decode(record):
            return tf.ensure_shape(tf.numpy_function(read, [record], tf.uint8), shape)

        return Images(tf.data.Dataset.range(6).map(lambda i: (i, i * 0)), 6, ("a",), decode)

    def reads_of_two_epochs(batches):
        reads.clear()
        return len([(x, y) for _ in range(2) for x, y in batches]) and len(reads)

    one_size, many_sizes = source((4, 4, 3)), source((None, None, 3))
    huge = dataclasses.replace(one_size, count=10**9)
    assert reads_of_two_epochs(train(one_size, 4)) == 6
    assert reads_of_two_epochs(train(one_size, 4, cache=False)) == 12
    assert reads_of_two_epochs(train(many_sizes, 4)) == 12
    assert reads_of_two_epochs(train(many_sizes, 4, cache=True)) == 6
    assert reads_of_two_epochs(eval_batches(one_size, 4, ImageSpec(4, MEAN, STD))) == 6
    assert reads_of_two_epochs(eval_batches(huge, 4, ImageSpec(4, MEAN, STD))) == 12


def test_photographs_of_many_sizes(imagenette):
    images = load_folder(imagenette / "train", limit=20)
    spec = ImageSpec(64, MEAN, STD, crop_fraction=0.875)
    x, y = next(train_batches(images, 8, spec, augmentation=EVERYTHING).as_numpy_iterator())
    assert (x.shape, y.shape) == ((8, 64, 64, 3), (8, 10))
    assert np.isfinite(x).all()
    evaluated = eval_batches(images, 8, spec)
    assert [x.shape for x, _ in epoch(evaluated)] == [(8, 64, 64, 3), (8, 64, 64, 3), (4, 64, 64, 3)]


def test_a_model_fits_and_evaluates(images):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    batches = train(images, augmentation=Augmentation(flip=True, rand_augment=(1, 9)))
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["loss"]).all()
    loss, _ = model.evaluate(eval_batches(images, 4, SPEC), verbose=0)
    assert np.isfinite(float(loss))


def test_pixels_stay_as_they_are_unless_they_are_normalised(images):
    pixels = np.stack([image for image, _ in images.examples.as_numpy_iterator()])
    x = np.concatenate([x for x, _ in eval_batches(images, 4, SPEC, normalize=False)])
    assert x.dtype == "float32"
    np.testing.assert_array_equal(x, pixels)


@pytest.mark.parametrize("make", [train_batches, eval_batches])
def test_refuses_batches_without_images(images, make):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got batch_size=0"):
        make(images, 0, SPEC)
