"""The steps of an `Augmentation`: each draws from the stateless seed that it is given, so a seed repeats its batch."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mixers.data.augmentation_settings import Augmentation
from keras_mixers.data.crops import random_boxes, random_translation
from keras_mixers.data.preprocessing_layers import apply_layers, make_layer
from keras_mixers.data.rand_augment import (
    RandAugment,
    adjust_brightness,
    adjust_color,
    adjust_contrast,
    in_parts,
    timm_operations,
    torchvision_operations,
)
from keras_mixers.models.image_spec import ImageSpec

ERASING_SCALE, ERASING_RATIO = (0.02, 0.33), (0.3, 3.3)


class AugmentBatch:
    """The steps of an `Augmentation` after the crop; `layers` replace those that it names."""

    def __init__(
        self, augmentation: Augmentation, num_classes: int, spec: ImageSpec, layers: Sequence[Callable[..., Any]] = ()
    ) -> None:
        self.layers = layers or [make_layer(text) for text in augmentation.layers]
        self.augmentation, self.num_classes, self.spec = augmentation, num_classes, spec
        if augmentation.rand_augment:
            of_timm = augmentation.rand_augment_operations == "timm"
            self.rand_augment = RandAugment(
                *augmentation.rand_augment,
                augmentation.rand_augment_std,
                augmentation.rand_augment_probability,
                timm_operations([255 * mean for mean in spec.mean]) if of_timm else torchvision_operations(),
            )

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: Any, mirrored: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Uint8 images (n, h, w, 3), int64 labels (n,) -> normalised float32 images, float32 labels (n, classes).

        `mirrored`, bool (n,), says which images are mirrored; by default that is drawn, if the recipe has `flip`.
        """
        recipe = self.augmentation
        labels = tf.one_hot(labels, self.num_classes)
        if self.layers:
            images, labels = apply_layers(self.layers, images, labels)
            return normalize_batch(images, self.spec), smooth(labels, recipe.label_smoothing)
        seeds = tf.unstack(tf.random.split(seed, 5))
        if recipe.translate:
            images = random_translation(images, recipe.translate, tf.random.fold_in(seed, 1))
        if recipe.flip:
            images = flip(images, drawn(images, 0.5, seeds[0]) if mirrored is None else mirrored)
        if recipe.rand_augment:
            images = self.rand_augment(images, seeds[1])
        if recipe.color_jitter:
            images = color_jitter(images, recipe.color_jitter, seeds[2])
        images = normalize_batch(images, self.spec)
        if recipe.random_erasing:
            images = random_erasing(images, recipe.random_erasing, recipe.erasing_fill, seeds[3])
        if recipe.mixup or recipe.cutmix:
            images, labels = mix(images, labels, recipe.mixup, recipe.cutmix, recipe.mix_probability, seeds[4])
        return images, smooth(labels, recipe.label_smoothing)


def normalize_batch(images: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """`ImageSpec.normalize` of tensors (n, height, width, 3): (x / 255 - mean) / std as float32."""
    mean, std = tf.constant(spec.mean, tf.float32), tf.constant(spec.std, tf.float32)
    # One product and one sum with whole images: TensorFlow broadcasts the three numbers of a pixel far more slowly.
    scale, offset = (tf.broadcast_to(value, tf.shape(images)[1:]) for value in (1 / (255 * std), mean / std))
    return tf.cast(images, tf.float32) * scale - offset


def drawn(images: tf.Tensor, probability: float, seed: Any) -> tf.Tensor:
    """Draws which of the images are changed, bool (n,)."""
    return tf.random.stateless_uniform([tf.shape(images)[0]], seed) < probability


def flip(images: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirrors the images (n, height, width, 3) for which `mirrored`, bool (n,), is true."""
    return in_parts(images, mirrored, [lambda part, _: part, lambda part, _: tf.reverse(part, [2])])


def color_jitter(images: tf.Tensor, strength: float, seed: Any) -> tf.Tensor:
    """Scales brightness, contrast and saturation of uint8 images, in this order, by factors within 1 +- strength."""
    amounts = tf.random.stateless_uniform([3, tf.shape(images)[0]], seed, -strength, strength)
    for adjust, amount in zip((adjust_brightness, adjust_contrast, adjust_color), tf.unstack(amounts), strict=True):
        images = adjust(images, amount)
    return images


def masks(boxes: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
    """Boxes (top, left, height, width), (n, 4), as float32 (n, height, width, 1) that is 0 inside and 1 outside."""
    top, left, box_height, box_width = tf.unstack(boxes[:, :, None], axis=1)
    rows, columns = tf.range(height), tf.range(width)
    rows = (rows >= top) & (rows < top + box_height)
    columns = (columns >= left) & (columns < left + box_width)
    return 1 - tf.cast(rows[:, :, None, None] & columns[:, None, :, None], tf.float32)


def random_erasing(images: tf.Tensor, probability: float, fill: str, seed: Any) -> tf.Tensor:
    """Fills a rectangle of each image with the mean (0 after normalisation) or noise, with this probability."""
    chance_seed, box_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))

    def erase(part: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        count, height, width, _ = tf.unstack(tf.shape(part))
        kept = masks(random_boxes(count, ERASING_SCALE, ERASING_RATIO, height, width, box_seed), height, width)
        noise = tf.random.stateless_normal(tf.shape(part), noise_seed) if fill == "noise" else 0.0
        return kept * part + (1 - kept) * noise

    return in_parts(images, drawn(images, probability, chance_seed), [lambda part, _: part, erase])


def mix(
    images: tf.Tensor, labels: tf.Tensor, mixup: float, cutmix: float, probability: float, seed: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """MixUp or CutMix, one of the two, of a batch with itself in reverse order, or neither.

    Both are `share * image + (1 - share) * other`: MixUp's share is one number, CutMix's is 0 inside a rectangle and 1
    outside. The label's share is the mean of the pixels'. `mixup` and `cutmix` are alphas; 0 leaves one out.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    height, width = tf.unstack(tf.shape(images)[1:3])
    mixed = tf.random.stateless_uniform([], seeds[0]) < probability
    cut = tf.random.stateless_uniform([], seeds[1]) < (0.5 if mixup and cutmix else float(cutmix > 0))
    gammas = tf.random.stateless_gamma([2], seeds[2], tf.where(cut, cutmix, mixup))
    share = gammas[0] / (gammas[0] + gammas[1])  # of Beta(alpha, alpha)
    # A box of 1 - share of the area around any pixel, cut off where it leaves the image.
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    center = tf.floor(tf.random.stateless_uniform([2], seeds[3]) * sides)
    half = tf.floor(tf.sqrt(1 - share) * sides / 2)
    box = tf.cast(tf.concat([center - half, 2 * half], axis=0), tf.int32)
    shares = tf.where(mixed, tf.where(cut, masks(box[None], height, width), share), 1.0)
    label_share = tf.reduce_mean(shares)
    images = shares * images + (1 - shares) * tf.reverse(images, [0])
    return images, label_share * labels + (1 - label_share) * tf.reverse(labels, [0])


def smooth(labels: tf.Tensor, amount: float) -> tf.Tensor:
    """Spreads `amount` of one-hot labels (n, classes) evenly over all classes."""
    return (1 - amount) * labels + amount / labels.shape[-1]
