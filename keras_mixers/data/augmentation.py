"""What happens to a training batch: the recipe as data, and the steps in its order.

Every step draws from the stateless seed that it is given, so a batch is a function of its images and its seed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mixers.data.crops import random_boxes, random_translation
from keras_mixers.data.preprocessing_layers import apply_layers, make_layer, read_layer
from keras_mixers.data.rand_augment import (
    MAX_MAGNITUDE,
    RandAugment,
    adjust_brightness,
    adjust_color,
    adjust_contrast,
    in_parts,
)

# The steps that `layers` take the place of.
REPLACED = ("translate", "flip", "rand_augment", "color_jitter", "random_erasing", "cutout", "mixup", "cutmix")
ERASING_SCALE, ERASING_RATIO = (0.02, 0.33), (0.3, 3.3)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A recipe of augmentation, applied in the order of its fields. By default nothing is done.

    Args:
        crop_scale: range of the area of a random crop, as shares of the image; the crop is resized to the image size.
            None takes the whole shorter side, and a random place along the longer one.
        crop_ratio: range of the crop's width / height.
        resize: length in pixels that the shorter side is resized to before a random crop of the image size
            ("resize 230, random crop 224"). None resizes it to the image size. Not together with `crop_scale`.
        translate: largest number of pixels by which an image is moved along each axis; what is uncovered is filled with
            its reflection. 0 for none.
        flip: whether half of the images are mirrored. "alternating" mirrors one half in the epochs 0, 2, ..., the other
            in the epochs 1, 3, ...: each pair of epochs shows every image both ways.
        rand_augment: (n, m), the number of operations for each image and their magnitude from 0 to 30. timm counts
            from 0 to 10: its m9 is 27 here.
        rand_augment_std: standard deviation of the magnitude, on the same scale.
        color_jitter: brightness, contrast and saturation are each scaled by a factor within 1 +- this.
        random_erasing: probability that a rectangle of an image (2-33 % of its area, ratio 0.3-3.3) is erased.
        cutout: side in pixels of a square that is filled with the mean colour somewhere in each image; 0 for none.
        erasing_fill: "mean" (the data set's mean colour) or "noise" (normal noise for each pixel).
        mixup: alpha of MixUp: images and labels are mixed with those of another image by a share from
            Beta(alpha, alpha), one for the batch.
        cutmix: alpha of CutMix: a rectangle comes from another image, and labels are mixed by the exact area.
        mix_probability: probability that a batch is mixed. If both `mixup` and `cutmix` are on, each is done to half
            of these batches.
        label_smoothing: share of the label that is spread over all classes.
        layers: preprocessing layers of Keras or KerasCV that take the place of all steps from `translate` to
            `mix_probability`, such as `("keras_cv.RandAugment(value_range=(0, 255))", "keras_cv.MixUp()")`. They draw
            from generators of their own: a seed does not repeat their batches.

    Raises:
        ValueError: if a field is out of its range.

    Example:
        >>> Augmentation(flip=True, rand_augment=(2, 12)).rand_augment
        (2, 12)
        >>> Augmentation(random_erasing=25)
        Traceback (most recent call last):
        ValueError: random_erasing must be from 0 to 1, got random_erasing=25.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resize: int | None = None
    translate: int = 0
    flip: bool | str = False
    rand_augment: tuple[int, float] | None = None
    rand_augment_std: float = 0.0
    color_jitter: float = 0.0
    random_erasing: float = 0.0
    erasing_fill: str = "mean"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    label_smoothing: float = 0.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def require(name, holds, rule):
            if not holds(getattr(self, name)):
                raise ValueError(f"{name} must be {rule}, got {name}={getattr(self, name)!r}.")

        def share(value):
            return 0 <= value <= 1

        def not_negative(value):
            return value >= 0

        def is_count(value):
            return isinstance(value, int) and value >= 0

        def a_pair(value):
            return isinstance(value, (tuple, list)) and len(value) == 2

        def a_range(value):
            return a_pair(value) and 0 < value[0] <= value[1]

        require(
            "crop_scale",
            lambda value: value is None or (a_range(value) and value[1] <= 1),
            "(smallest, largest) with 0 < smallest <= largest <= 1, or None",
        )
        require("crop_ratio", a_range, "(smallest, largest) with 0 < smallest <= largest")
        require("resize", lambda value: value is None or value >= 1, "at least 1 pixel, or None")
        if self.crop_scale and self.resize:
            raise ValueError(
                f"resize and crop_scale are two ways to crop: set one of them, got resize={self.resize} and "
                f"crop_scale={self.crop_scale}."
            )
        require("translate", is_count, "a whole number of pixels, 0 or more")
        require("flip", lambda value: value in (True, False, "alternating"), 'True, False or "alternating"')
        require(
            "rand_augment",
            lambda value: value is None or (a_pair(value) and value[0] >= 1 and 0 <= value[1] <= MAX_MAGNITUDE),
            f"(n, m) with n at least 1 and m from 0 to {MAX_MAGNITUDE}, or None",
        )
        require("rand_augment_std", not_negative, "0 or more")
        require("color_jitter", share, "from 0 to 1")
        require("random_erasing", share, "from 0 to 1")
        require("erasing_fill", lambda value: value in ("mean", "noise"), '"mean" or "noise"')
        require("cutout", is_count, "a whole number of pixels, 0 or more")
        require("mixup", not_negative, "0 (off) or more")
        require("cutmix", not_negative, "0 (off) or more")
        require("mix_probability", share, "from 0 to 1")
        require("label_smoothing", share, "from 0 to 1")
        require("layers", lambda value: isinstance(value, (tuple, list)), "a tuple of names of layers")
        for layer in self.layers:
            read_layer(layer)
        if self.layers:
            self.check_gives_way()

    def check_gives_way(self) -> None:
        """Refuse steps whose place layers are to take."""
        steps = [name for name in REPLACED if getattr(self, name)]
        if steps:
            beside = ", ".join(f"{name}={getattr(self, name)!r}" for name in steps)
            raise ValueError(
                f"layers take the place of the other steps, got {beside} beside them; leave those out, or add layers "
                "that do the same."
            )


class AugmentBatch:
    """The steps of an `Augmentation` after the crop.

    Args:
        augmentation: the `Augmentation`.
        num_classes: number of classes.
        mean: mean colour, three numbers in units of 255.
        std: standard deviation of the colours, three numbers in units of 255.
        layers: layers that take the place of the augmentation's steps; those that it names by default.

    Example:
        >>> import tensorflow as tf
        >>> augment = AugmentBatch(Augmentation(flip=True), num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> images, labels = augment(tf.zeros((2, 8, 8, 3), tf.uint8), tf.constant([3, 4], tf.int64), seed=(0, 1))
        >>> images.shape, labels.shape
        (TensorShape([2, 8, 8, 3]), TensorShape([2, 10]))
    """

    def __init__(
        self,
        augmentation: Augmentation,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        layers: Sequence[Callable[..., Any]] = (),
    ) -> None:
        self.layers = layers or [make_layer(text) for text in augmentation.layers]
        self.augmentation, self.num_classes, self.mean, self.std = augmentation, num_classes, mean, std
        if augmentation.rand_augment:
            self.rand_augment = RandAugment(*augmentation.rand_augment, augmentation.rand_augment_std)

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: Any, mirrored: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Uint8 images (n, h, w, 3), int64 labels (n,) -> normalised float32 images, float32 labels (n, classes).

        `mirrored`, bool (n,), tells which images are mirrored; by default that is drawn, if the recipe has `flip`.
        """
        recipe = self.augmentation
        if self.layers:
            images, labels = apply_layers(self.layers, images, tf.one_hot(labels, self.num_classes))
            return normalize(images, self.mean, self.std), smooth(labels, recipe.label_smoothing)
        seeds = tf.unstack(tf.random.split(seed, 5))
        if recipe.translate:
            images = random_translation(images, recipe.translate, tf.random.fold_in(seed, 1))
        if recipe.flip:
            images = random_flip(images, seeds[0]) if mirrored is None else flip(images, mirrored)
        if recipe.rand_augment:
            images = self.rand_augment(images, seeds[1])
        if recipe.color_jitter:
            images = color_jitter(images, recipe.color_jitter, seeds[2])
        images = normalize(images, self.mean, self.std)
        if recipe.random_erasing:
            images = random_erasing(images, recipe.random_erasing, recipe.erasing_fill, seeds[3])
        if recipe.cutout:
            images = cutout(images, recipe.cutout, tf.random.fold_in(seed, 2))
        labels = tf.one_hot(labels, self.num_classes)
        if recipe.mixup or recipe.cutmix:
            images, labels = mix(images, labels, recipe.mixup, recipe.cutmix, recipe.mix_probability, seeds[4])
        return images, smooth(labels, recipe.label_smoothing)


def normalize(images: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(pixels / 255 - mean) / std of images (n, height, width, 3) with values from 0 to 255, as float32."""
    mean, std = tf.constant(mean, tf.float32), tf.constant(std, tf.float32)
    # One product and one sum with whole images: TensorFlow broadcasts the three numbers of a pixel far more slowly.
    scale, offset = (tf.broadcast_to(value, tf.shape(images)[1:]) for value in (1 / (255 * std), mean / std))
    return tf.cast(images, tf.float32) * scale - offset


def random_flip(images: tf.Tensor, seed: Any) -> tf.Tensor:
    """Mirror half of the images (n, height, width, 3)."""
    return flip(images, tf.random.stateless_uniform([tf.shape(images)[0]], seed) < 0.5)


def flip(images: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirror the images (n, height, width, 3) for which `mirrored`, bool (n,), is true."""
    return in_parts(images, tf.cast(mirrored, tf.int32), [lambda part, _: part, lambda part, _: tf.reverse(part, [2])])


def color_jitter(images: tf.Tensor, strength: float, seed: Any) -> tf.Tensor:
    """Scale brightness, contrast and saturation of uint8 images, in this order, by factors within 1 +- strength."""
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
    """Fill a rectangle of each image with the mean (0 after normalisation) or with noise, with this probability."""
    chance_seed, box_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    erased = tf.random.stateless_uniform([tf.shape(images)[0]], chance_seed) < probability

    def erase(part, _):
        count, height, width, _ = tf.unstack(tf.shape(part))
        kept = masks(random_boxes(count, ERASING_SCALE, ERASING_RATIO, height, width, box_seed), height, width)
        noise = tf.random.stateless_normal(tf.shape(part), noise_seed) if fill == "noise" else 0.0
        return kept * part + (1 - kept) * noise

    return in_parts(images, tf.cast(erased, tf.int32), [lambda part, _: part, erase])


def cutout(images: tf.Tensor, side: int, seed: Any) -> tf.Tensor:
    """Fill a square around a random pixel of each image with the mean (0 after normalisation), cut off at the edges."""
    count, height, width = tf.unstack(tf.shape(images)[:3])
    places = tf.random.stateless_uniform([count, 2], seed) * tf.cast(tf.stack([height, width]), tf.float32)
    corners = tf.cast(places, tf.int32) - side // 2
    return images * masks(tf.concat([corners, tf.fill([count, 2], side)], axis=1), height, width)


def mix(
    images: tf.Tensor, labels: tf.Tensor, mixup: float, cutmix: float, probability: float, seed: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """MixUp or CutMix of a batch with itself in reverse order, one of the two for the batch.

    Both are `share * image + (1 - share) * other`: MixUp's share is one number, CutMix's is 0 inside a rectangle
    and 1 outside. The label's share is the mean of the pixels'.

    Args:
        images: float32 (n, height, width, 3).
        labels: float32 (n, classes).
        mixup: alpha of MixUp, 0 for CutMix alone.
        cutmix: alpha of CutMix, 0 for MixUp alone.
        probability: probability that the batch is mixed at all.
        seed: two integers.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    height, width = tf.unstack(tf.shape(images)[1:3])
    mixed = tf.random.stateless_uniform([], seeds[0]) < probability
    cut = tf.random.stateless_uniform([], seeds[1]) < (0.5 if mixup and cutmix else float(cutmix > 0))
    share = _beta(tf.where(cut, cutmix, mixup), seeds[2])
    # A box of 1 - share of the area around any pixel, cut off where it leaves the image.
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    center = tf.floor(tf.random.stateless_uniform([2], seeds[3]) * sides)
    half = tf.floor(tf.sqrt(1 - share) * sides / 2)
    box = tf.cast(tf.concat([center - half, 2 * half], axis=0), tf.int32)
    shares = tf.where(mixed, tf.where(cut, masks(box[None], height, width), share), 1.0)
    label_share = tf.reduce_mean(shares)
    images = shares * images + (1 - shares) * tf.reverse(images, [0])
    return images, label_share * labels + (1 - label_share) * tf.reverse(labels, [0])


def _beta(alpha, seed):
    first, second = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    return first / (first + second)


def smooth(labels: tf.Tensor, amount: float) -> tf.Tensor:
    """Spread `amount` of one-hot labels (n, classes) evenly over all classes."""
    return (1 - amount) * labels + amount / labels.shape[-1]
