"""From images to the batches that `model.fit` and `model.evaluate` take, on any Keras backend."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mixers.data.augmentation import Augmentation, AugmentBatch, normalize
from keras_mixers.data.crops import center_crop, random_crop, random_crops
from keras_mixers.data.preprocessing_layers import check_layers
from keras_mixers.data.shard import ALONE, DataShard
from keras_mixers.data.sources import Images

CACHE_BYTES = 2**30


def train_batches(
    images: Images,
    batch_size: int,
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation | None = None,
    layers: Sequence[Callable[..., Any]] = (),
    seed: int = 0,
    cache: bool | None = None,
    epochs: range | None = None,
    first_batch: int = 0,
    share: DataShard = ALONE,
) -> tf.data.Dataset:
    """Shuffled, augmented batches; every iteration is another epoch.

    Args:
        images: `Images`.
        batch_size: number of images in a batch. The last batch of an epoch holds what is left.
        image_size: height and width of the batches in pixels.
        mean: mean colour of the data, three numbers in units of 255.
        std: standard deviation of the colours, three numbers in units of 255.
        augmentation: `Augmentation`; none by default.
        layers: preprocessing layers of Keras or KerasCV that take the place of the augmentation after the crop, such as
            `[keras_cv.layers.RandAugment(value_range=(0, 255)), keras_cv.layers.MixUp(), keras_cv.layers.CutMix()]`.
            They get `{"images": values from 0 to 255, "labels": one-hot}`, or images alone if they know no labels. What
            they draw comes from generators of their own, which the seed does not reach.
        seed: integer. Every epoch's order and augmentation are a function of it and of the epoch's number. Without
            `epochs` the numbers are drawn, and then `tf.random.set_seed`, if it was called, has its part in them.
        epochs: `range(start, stop)`: every iteration gives these epochs one after the other, and epoch i is the same
            wherever the range starts. So a run that is resumed sees what an unbroken one would.
        first_batch: number of batches of the first of these epochs that are left out.
        cache: whether the decoded images stay in memory as uint8. By default they do if they all have one known size
            and take at most 1 GiB, and one process reads them all.
        share: the `DataShard` of one of several processes or devices: it gets `batch_size` / `processes` images of
            each batch.
            Images are cropped as if it were alone; what is drawn for a whole batch is drawn for each part anew.

    Returns:
        `tf.data.Dataset` of normalised float32 images (batch, image_size, image_size, 3) and one-hot float32 labels
        (batch, num_classes), with a known number of batches. Images of the right size are not resampled.

    Raises:
        ValueError: if sizes are not positive, mean and std not three numbers with std above 0, or layers are given
            beside steps whose place they take.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_mixers.data import Augmentation, Images
        >>> arrays = np.zeros((5, 8, 8, 3), "uint8"), np.array([0, 1, 0, 1, 0])
        >>> images = Images(tf.data.Dataset.from_tensor_slices(arrays), 5, ("cat", "dog"))
        >>> half = (0.5, 0.5, 0.5)
        >>> batches = train_batches(images, 2, 8, mean=half, std=half, augmentation=Augmentation(flip=True))
        >>> [(x.shape[0], y.shape[1]) for x, y in batches]
        [(2, 2), (2, 2), (1, 2)]
    """
    _check(batch_size, image_size, mean, std)
    augmentation = augmentation or Augmentation()
    if augmentation.translate >= image_size:
        raise ValueError(
            f"translate must be less than the image size, got translate={augmentation.translate} and "
            f"image_size={image_size}."
        )
    check_layers(layers)
    if layers:
        augmentation.check_gives_way()
    augment = AugmentBatch(augmentation, images.num_classes, mean, std, layers)
    images = _cached(images, cache, share)

    def crop(example, seed):
        image, label = example
        return random_crop(image, image_size, augmentation, seed), label

    @tf.autograph.experimental.do_not_convert  # It has no Python control flow over tensors; conversion takes seconds.
    def finish(batch, seed, mirrored=None):
        pixels, labels = batch
        crop_seed, augment_seed = tf.unstack(tf.random.split(seed, 2))
        if have_size:
            pixels = random_crops(pixels, augmentation, crop_seed)
        return augment(pixels, labels, augment_seed, mirrored)

    # A crop for each image costs 60 microseconds of small operations, a crop of the batch a tenth of that.
    have_size = _shape(images) == (image_size, image_size, 3) and augmentation.resize in (None, image_size)
    buffer = images.shuffle_buffer or images.count

    def own(dataset):
        return share.part(share.filled(dataset, images.count), images.count, batch_size)

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch):
        # `shuffle` adds the global seed of `tf.random.set_seed` to its own, and fails if that is 0 and its own a
        # tensor. This sets the seed of the graph that is being traced here and of nothing else.
        tf.random.set_seed(1)
        # Maps run in parallel, so none may draw from a generator: the pipeline carries stateless seeds.
        order_seed, *seeds = tf.unstack(tf.random.split(tf.random.fold_in([seed, 0], epoch), 3))
        if share.processes > 1:
            seeds[1] = tf.random.fold_in(seeds[1], share.process)
        crop_seeds, batch_seeds = (
            tf.data.Dataset.counter().map(lambda i, seed=seed: tf.random.fold_in(seed, i)) for seed in seeds
        )

        def shuffled(dataset):
            return dataset.shuffle(buffer, tf.cast(order_seed[0], tf.int64), reshuffle_each_iteration=False)

        def in_batches(dataset):
            return dataset.batch(batch_size // share.processes)

        records = shuffled(images.records)
        examples = dataclasses.replace(images, records=own(records)).examples
        if not have_size:
            seeded = tf.data.Dataset.zip(examples, own(crop_seeds.take(images.count)))
            examples = seeded.map(crop, tf.data.AUTOTUNE)
        parts = [in_batches(examples), batch_seeds]
        if augmentation.flip == "alternating":
            # Which half an image is in is drawn once for the run; shuffled alike, its number stays beside it.
            halves = tf.random.stateless_uniform([images.count], tf.random.fold_in([seed, 0], -1)) < 0.5
            mirrored = tf.data.Dataset.from_tensor_slices(halves ^ (epoch % 2 == 1))
            parts.append(in_batches(own(shuffled(mirrored))))
        batches = tf.data.Dataset.zip(*parts)
        batches = batches.skip(tf.where(epoch == start, tf.constant(first_batch, tf.int64), 0))
        return batches.map(finish, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    in_epoch = math.ceil(images.count / batch_size)
    if epochs is None:
        # One epoch, whose number every iteration draws anew.
        start, count = -1, in_epoch
        numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    else:
        start, count = epochs.start, len(epochs) * in_epoch - first_batch
        numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
    batches = numbers.flat_map(one_epoch)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)


def eval_batches(
    images: Images,
    batch_size: int,
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    crop_fraction: float = 1.0,
    interpolation: str = "bicubic",
    cache: bool | None = None,
    share: DataShard = ALONE,
) -> tf.data.Dataset:
    """Batches in the order of the images: resized, cropped at the centre and normalised.

    Args:
        images: `Images`.
        batch_size: number of images in a batch; the last one holds what is left.
        image_size: height and width of the batches in pixels.
        mean: mean colour of the data, three numbers in units of 255.
        std: standard deviation of the colours, three numbers in units of 255.
        crop_fraction: share of the shorter side that the crop keeps: it is resized to image_size / crop_fraction.
        interpolation: method of `tf.image.resize`, with antialiasing.
        cache: as in `train_batches`.
        share: as in `train_batches`.

    Returns:
        `tf.data.Dataset` with the elements of `train_batches`. If several devices share the batches there is a third:
        a weight for each image, 0 for those that fill up the last batch, with a mean of 1.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_mixers.data import Images
        >>> arrays = np.full((3, 8, 8, 3), 255, "uint8"), np.array([0, 1, 1])
        >>> images = Images(tf.data.Dataset.from_tensor_slices(arrays), 3, ("cat", "dog"))
        >>> x, y = next(iter(eval_batches(images, 3, 8, mean=(0.5,) * 3, std=(0.25,) * 3)))
        >>> float(x[0, 0, 0, 0]), y.numpy().tolist()
        (2.0, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    """
    _check(batch_size, image_size, mean, std)
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"crop_fraction must be above 0 and at most 1, got crop_fraction={crop_fraction}.")
    images = _cached(images, cache, share)
    resized = math.floor(image_size / crop_fraction)

    def crop(image, label):
        return center_crop(image, image_size, resized, interpolation), label

    def finish(pixels, labels, *weights):
        return normalize(pixels, mean, std), tf.one_hot(labels, images.num_classes), *weights

    def own(dataset):
        return share.part(dataset, images.count, batch_size)

    examples = dataclasses.replace(images, records=own(share.filled(images.records, images.count))).examples
    if _shape(images) != (resized, resized, 3) or resized != image_size:
        examples = examples.map(crop, tf.data.AUTOTUNE)
    if share.devices > 1:
        filled = images.count + share.padding(images.count)
        weights = tf.data.Dataset.range(filled).map(lambda i: tf.where(i < images.count, filled / images.count, 0.0))
        examples = tf.data.Dataset.zip(examples, own(weights)).map(lambda example, weight: (*example, weight))
    batches = examples.batch(batch_size // share.processes).map(finish, tf.data.AUTOTUNE)
    if share.devices > 1:  # TensorFlow does not know how many examples a part has, or a filled epoch
        batches = batches.apply(tf.data.experimental.assert_cardinality(math.ceil(images.count / batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def _shape(images):
    """The shape that all images have; sides that differ or are not known are None."""
    return tuple(images.examples.element_spec[0].shape)


def _cached(images, cache, share):
    shape = _shape(images)
    if cache is None:
        cache = share.processes == 1 and None not in shape and images.count * math.prod(shape) <= CACHE_BYTES
    return images.cached() if cache else images


def _check(batch_size, image_size, mean, std):
    for name, value in {"batch_size": batch_size, "image_size": image_size}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {name}={value}.")
    for name, value in {"mean": mean, "std": std}.items():
        if np.shape(value) != (3,):
            raise ValueError(f"{name} must be three numbers, one for each colour, got {name}={value}.")
    if min(std) <= 0:
        raise ValueError(f"std must be above 0 for each colour, got std={std}.")
