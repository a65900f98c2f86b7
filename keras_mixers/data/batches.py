"""From images to the batches that `model.fit` and `model.evaluate` take, on any Keras backend."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mixers.data.augmentation import AugmentBatch, normalize_batch
from keras_mixers.data.augmentation_settings import Augmentation
from keras_mixers.data.crops import center_crop, random_crop, random_crops
from keras_mixers.data.preprocessing_layers import check_layers
from keras_mixers.data.shard import ALONE, DataShard
from keras_mixers.data.sources import Images
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models.image_spec import ImageSpec

CACHE_BYTES = 2**30


def train_batches(
    images: Images,
    batch_size: int,
    spec: ImageSpec,
    *,
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
        spec: the `ImageSpec` of the batches: their size, and the statistics by which they are normalised.
        augmentation: `Augmentation`; none by default.
        layers: preprocessing layers of Keras or KerasCV that replace the augmentation after the crop, such as
            `[keras_cv.layers.RandAugment(value_range=(0, 255)), keras_cv.layers.MixUp(), keras_cv.layers.CutMix()]`.
            They get `{"images": values from 0 to 255, "labels": one-hot}`, or images alone if they know no labels, and
            draw from generators of their own, which the seed does not reach.
        seed: integer that, with the epoch's number, decides each epoch's order and augmentation. Without `epochs` the
            number is drawn, and `tf.random.set_seed` changes it too.
        epochs: `range(start, stop)`: every iteration gives these epochs in turn. Epoch i is the same wherever the range
            starts, so that a resumed run sees what an unbroken one would.
        first_batch: number of batches that the first of these epochs skips.
        cache: whether the decoded images stay in memory as uint8. By default they do if they all have one known size,
            take at most 1 GiB, and one process reads them all.
        share: the `DataShard` of one of several processes or devices: it gets `batch_size` / `processes` images of
            each batch, cropped as if it were alone. What is drawn for a whole batch is drawn for each part anew.

    Returns:
        `tf.data.Dataset` of normalised float32 images (batch, size, size, 3) and one-hot float32 labels
        (batch, num_classes), with a known number of batches. Images of the right size are not resampled.

    Raises:
        ValueError: if `batch_size` is not positive, `translate` reaches the images' size, or layers are given beside
            steps that they replace.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_mixers.data import Augmentation, Images
        >>> from keras_mixers.models import ImageSpec
        >>> arrays = np.zeros((5, 8, 8, 3), "uint8"), np.array([0, 1, 0, 1, 0])
        >>> images = Images(tf.data.Dataset.from_tensor_slices(arrays), 5, ("cat", "dog"))
        >>> spec = ImageSpec(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> batches = train_batches(images, 2, spec, augmentation=Augmentation(flip=True))
        >>> [(x.shape[0], y.shape[1]) for x, y in batches]
        [(2, 2), (2, 2), (1, 2)]
    """
    check_positive_int("batch_size", batch_size)
    augmentation = augmentation or Augmentation()
    if augmentation.translate >= spec.size:
        raise ValueError(
            f"translate must be less than the image size, got translate={augmentation.translate} and size={spec.size}."
        )
    check_layers(layers)
    if layers:
        augmentation.check_gives_way()
    augment = AugmentBatch(augmentation, images.num_classes, spec, layers)
    images = _cached(images, cache, share)

    @tf.autograph.experimental.do_not_convert  # without Python control flow over tensors; conversion takes seconds
    def finish(batch: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor, mirrored: tf.Tensor | None = None) -> Any:
        pixels, labels = batch
        crop_seed, augment_seed = tf.unstack(tf.random.split(seed, 2))
        if have_size:
            pixels = random_crops(pixels, augmentation, crop_seed)
        return augment(pixels, labels, augment_seed, mirrored)

    # A crop for each image costs 60 microseconds of small operations, a crop of the batch a tenth of that.
    have_size = images.shape == (spec.size, spec.size, 3) and augmentation.resize in (None, spec.size)
    buffer, own_size = images.shuffle_buffer or images.count, batch_size // share.processes

    def own(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return share.part(share.filled(dataset, images.count), images.count, batch_size)

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` adds the global seed to its own, and fails if that is 0 and its own a tensor. This sets the seed of
        # the graph that is traced here and of nothing else.
        tf.random.set_seed(1)
        # Maps run in parallel, so none may draw from a generator: the pipeline carries stateless seeds.
        order_seed, *seeds = tf.unstack(tf.random.split(tf.random.fold_in([seed, 0], epoch), 3))
        if share.processes > 1:
            seeds[1] = tf.random.fold_in(seeds[1], share.process)
        crop_seeds, batch_seeds = (
            tf.data.Dataset.counter().map(lambda i, seed=seed: tf.random.fold_in(seed, i)) for seed in seeds
        )

        def shuffled(dataset: tf.data.Dataset) -> tf.data.Dataset:
            return own(dataset.shuffle(buffer, tf.cast(order_seed[0], tf.int64), reshuffle_each_iteration=False))

        examples = dataclasses.replace(images, records=shuffled(images.records)).examples
        if not have_size:
            seeded = tf.data.Dataset.zip(examples, own(crop_seeds.take(images.count)))
            crop = functools.partial(random_crop, size=spec.size, augmentation=augmentation)
            examples = seeded.map(lambda example, seed: (crop(example[0], seed=seed), example[1]), tf.data.AUTOTUNE)
        parts = [examples.batch(own_size), batch_seeds]
        if augmentation.flip == "alternating":
            # Which half an image is in is drawn once for the run; shuffled alike, its number stays beside it.
            halves = tf.random.stateless_uniform([images.count], tf.random.fold_in([seed, 0], -1)) < 0.5
            mirrored = tf.data.Dataset.from_tensor_slices(halves ^ (epoch % 2 == 1))
            parts.append(shuffled(mirrored).batch(own_size))
        batches = tf.data.Dataset.zip(*parts)
        batches = batches.skip(tf.where(epoch == start, tf.constant(first_batch, tf.int64), 0))
        return batches.map(finish, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    in_epoch = math.ceil(images.count / batch_size)
    if epochs is None:  # one epoch, whose number every iteration draws anew
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
    spec: ImageSpec,
    *,
    normalize: bool = True,
    cache: bool | None = None,
    share: DataShard = ALONE,
) -> tf.data.Dataset:
    """Batches in the order of the images: resized, cropped at the centre and normalised.

    Args:
        images: `Images`.
        batch_size: number of images in a batch; the last one holds what is left.
        spec: the `ImageSpec` of the batches: their size, their statistics, and how they are cut from photographs.
        normalize: False leaves pixels from 0 to 255, for networks that normalise them.
        cache: as in `train_batches`.
        share: as in `train_batches`.

    Returns:
        `tf.data.Dataset` with the elements of `train_batches`. If several devices share the batches there is a third:
        a weight for each image, 0 for those that fill up the last batch, with a mean of 1.

    Raises:
        ValueError: if `batch_size` is not positive.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_mixers.data import Images
        >>> from keras_mixers.models import ImageSpec
        >>> arrays = np.full((3, 8, 8, 3), 255, "uint8"), np.array([0, 1, 1])
        >>> images = Images(tf.data.Dataset.from_tensor_slices(arrays), 3, ("cat", "dog"))
        >>> x, y = next(iter(eval_batches(images, 3, ImageSpec(8, mean=(0.5,) * 3, std=(0.25,) * 3))))
        >>> float(x[0, 0, 0, 0]), y.numpy().tolist()
        (2.0, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    """
    check_positive_int("batch_size", batch_size)
    images = _cached(images, cache, share)

    def finish(pixels: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = normalize_batch(pixels, spec) if normalize else tf.cast(pixels, tf.float32)
        return pixels, tf.one_hot(labels, images.num_classes), *weights

    records = share.part(share.filled(images.records, images.count), images.count, batch_size)
    examples = dataclasses.replace(images, records=records).examples
    if not images.shape == (spec.size, spec.size, 3) == (spec.shorter_side, spec.shorter_side, 3):
        examples = examples.map(lambda image, label: (center_crop(image, spec), label), tf.data.AUTOTUNE)
    if share.devices > 1:
        filled = images.count + share.padding(images.count)
        weights = tf.data.Dataset.range(filled).map(lambda i: tf.where(i < images.count, filled / images.count, 0.0))
        weights = share.part(weights, images.count, batch_size)
        examples = tf.data.Dataset.zip(examples, weights).map(lambda example, weight: (*example, weight))
    batches = examples.batch(batch_size // share.processes).map(finish, tf.data.AUTOTUNE)
    if share.devices > 1:  # TensorFlow cannot count the examples of a part, or of a filled epoch
        batches = batches.apply(tf.data.experimental.assert_cardinality(math.ceil(images.count / batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def _cached(images: Images, cache: bool | None, share: DataShard) -> Images:
    if cache is None:
        fits = None not in images.shape and images.count * math.prod(images.shape) <= CACHE_BYTES
        cache = share.processes == 1 and fits
    return images.cached() if cache else images
