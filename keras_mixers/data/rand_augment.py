"""RandAugment with the operations and ranges of torchvision or timm, with which the papers' networks were trained."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mixers.data.augmentation_settings import MAX_MAGNITUDE
from keras_mixers.data.crops import affine


@dataclasses.dataclass(frozen=True)
class Operation:
    """One of the operations that RandAugment chooses from.

    Args:
        apply: changes uint8 images (n, height, width, 3) by float32 amounts (n,).
        amount: makes these amounts of float32 magnitudes (n,) from 0 to 1 and the image size in pixels.
        signed: whether half of the amounts are negative.
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    amount: Callable[[tf.Tensor, Any], tf.Tensor]
    signed: bool = False


def torchvision_operations() -> dict[str, Operation]:
    """The 14 operations of torchvision's RandAugment: name -> `Operation`. It moves whole pixels, onto black."""

    def to_pixels(magnitude: tf.Tensor, size: Any) -> tf.Tensor:
        return tf.floor(150 / 331 * size * magnitude)

    return {
        "identity": Operation(lambda images, _: images, _to(0.0)),
        **_moves(functools.partial(affine, interpolation="NEAREST", fill_mode="CONSTANT"), to_pixels, corner=0.0),
        **_enhancements(),
        "posterize": Operation(_posterize, lambda magnitude, size: 8 - tf.round(4 * magnitude)),
        "solarize": Operation(_solarize, lambda magnitude, size: 255 - 255 * magnitude),
        "autocontrast": Operation(_autocontrast, _to(0.0)),
        "equalize": Operation(_equalize, _to(0.0)),
    }


def timm_operations(fill: Sequence[float]) -> dict[str, Operation]:
    """The 15 operations of timm's RandAugment with magnitudes that increase ("inc1"): name -> `Operation`.

    They interpolate bilinearly, where timm draws bilinear or bicubic interpolation. `fill` is the colour beyond an
    image, from 0 to 255: timm takes the data set's mean.
    """

    def to_pixels(magnitude: tf.Tensor, size: Any) -> tf.Tensor:
        return 0.45 * size * magnitude

    return {
        **_moves(functools.partial(_move_smoothly, fill=fill), to_pixels, corner=0.5),
        **_enhancements(),
        "posterize": Operation(_posterize, lambda magnitude, size: tf.maximum(4 - tf.floor(4 * magnitude), 1)),
        "solarize": Operation(_solarize, lambda magnitude, size: 256 - tf.floor(256 * magnitude)),
        "solarize_add": Operation(_solarize_add, lambda magnitude, size: tf.floor(110 * magnitude)),
        "autocontrast": Operation(_autocontrast, _to(0.0)),
        "equalize": Operation(_equalize, _to(0.0)),
        "invert": Operation(lambda images, _: 255 - images, _to(0.0)),
    }


def _to(limit: float) -> Callable[[tf.Tensor, Any], tf.Tensor]:
    return lambda magnitude, size: limit * magnitude


def _moves(
    move: Callable[[tf.Tensor, Sequence[Any]], tf.Tensor],
    to_pixels: Callable[[tf.Tensor, Any], tf.Tensor],
    corner: float,
) -> dict[str, Operation]:
    """Shears, translations and rotation by `move(images, coefficients)`.

    Shears are about a point `corner` pixels above and left of the centre of the first pixel: Pillow takes its corner.
    """
    signed = functools.partial(Operation, signed=True)
    return {
        "shear_x": signed(lambda images, s: move(images, [1.0, s, corner * s, 0.0, 1.0, 0.0]), _to(0.3)),
        "shear_y": signed(lambda images, s: move(images, [1.0, 0.0, 0.0, s, 1.0, corner * s]), _to(0.3)),
        "translate_x": signed(lambda images, pixels: move(images, [1.0, 0.0, -pixels, 0.0, 1.0, 0.0]), to_pixels),
        "translate_y": signed(lambda images, pixels: move(images, [1.0, 0.0, 0.0, 0.0, 1.0, -pixels]), to_pixels),
        "rotate": signed(functools.partial(_rotate, move), _to(30.0)),
    }


def _enhancements() -> dict[str, Operation]:
    """Pillow's enhancements, which both libraries scale in the same way."""
    signed = functools.partial(Operation, amount=_to(0.9), signed=True)
    return {
        "brightness": signed(adjust_brightness),
        "color": signed(adjust_color),
        "contrast": signed(adjust_contrast),
        "sharpness": signed(_adjust_sharpness),
    }


class RandAugment:
    """`rounds` operations per image, drawn with replacement (Cubuk et al., 2020).

    Args:
        rounds: number of operations per image, the paper's n.
        magnitude: strength of the operations from 0 to 30, the paper's m.
        std: standard deviation of the strength, which is drawn for each operation and clipped to 0 and 30.
        probability: that of each operation to be carried out.
        operations: name -> `Operation`, torchvision's by default.
    """

    def __init__(
        self,
        rounds: int,
        magnitude: float,
        std: float = 0.0,
        probability: float = 1.0,
        operations: dict[str, Operation] | None = None,
    ) -> None:
        self.rounds, self.magnitude, self.std, self.probability = rounds, magnitude, std, probability
        self.operations = [*(operations or torchvision_operations()).values()]

    def __call__(self, images: tf.Tensor, seed: Any) -> tf.Tensor:
        """Uint8 images (n, height, width, 3) -> the same, for a stateless seed of two integers."""
        return functools.reduce(self._round, tf.unstack(tf.random.split(seed, self.rounds)), images)

    def _round(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        choice_seed, strength_seed, sign_seed = tf.unstack(tf.random.split(seed, 3))
        count, size = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
        choices = tf.random.stateless_uniform([count], choice_seed, 0, len(self.operations), tf.int32)
        strength = self.magnitude + self.std * tf.random.stateless_normal([count], strength_seed)
        strength = tf.clip_by_value(strength, 0.0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        signs = tf.sign(tf.random.stateless_uniform([count], sign_seed) - 0.5)

        def change(operation: Operation, part: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
            amounts = operation.amount(tf.gather(strength, place), size)
            return operation.apply(part, amounts * tf.gather(signs, place) if operation.signed else amounts)

        changes = [functools.partial(change, operation) for operation in self.operations]
        if self.probability < 1:
            carried_out = tf.random.stateless_uniform([count], tf.random.fold_in(seed, 1)) < self.probability
            choices = tf.where(carried_out, choices, len(changes))
            changes.append(lambda part, place: part)
        return in_parts(images, choices, changes)


def in_parts(images: tf.Tensor, choices: tf.Tensor, functions: Sequence[Callable[..., tf.Tensor]]) -> tf.Tensor:
    """Runs each function once, on the images, and their places in the batch, whose `choices` (n,) are its position."""
    places = tf.dynamic_partition(tf.range(tf.shape(images)[0]), tf.cast(choices, tf.int32), len(functions))
    parts = [tf.gather(images, place) for place in places]
    changed = [
        # TensorFlow's depthwise convolution and histogram fail on no images.
        tf.cond(tf.size(place) > 0, functools.partial(function, part, place), functools.partial(tf.identity, part))
        for function, part, place in zip(functions, parts, places, strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(places, changed), images.shape)


def _rotate(move: Callable[[tf.Tensor, Sequence[Any]], tf.Tensor], images: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    cos, sin = tf.cos(degrees * math.pi / 180), tf.sin(degrees * math.pi / 180)
    y, x = tf.unstack(tf.cast(tf.shape(images)[1:3] - 1, tf.float32) / 2)  # the centre
    return move(images, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def _move_smoothly(images: tf.Tensor, coefficients: Sequence[Any], fill: Sequence[float]) -> tf.Tensor:
    """Interpolates bilinearly inside the image; beyond it is `fill`."""
    inside = affine(tf.ones_like(images[..., :1]), coefficients, "NEAREST", "CONSTANT")
    moved = affine(_floats(images), coefficients, "BILINEAR", "NEAREST")
    return tf.where(inside > 0, _pixels(moved), tf.cast(tf.round(fill), tf.uint8))


def adjust_brightness(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Scales uint8 images (n, height, width, 3) by 1 + amounts (n,)."""
    return _pixels(_floats(images) * _each(1 + amounts))


def adjust_contrast(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Moves uint8 images away from the mean of their grey image by 1 + amounts (n,)."""
    images = _floats(images)
    grey = tf.round(tf.reduce_mean(tf.image.rgb_to_grayscale(images), axis=(1, 2, 3), keepdims=True))
    return _pixels(grey + (images - grey) * _each(1 + amounts))


def adjust_color(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Moves uint8 images away from their grey image by 1 + amounts (n,)."""
    images = _floats(images)
    return _pixels(images + _each(amounts) * (images - tf.image.rgb_to_grayscale(images)))


def _adjust_sharpness(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    images = _floats(images)
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    smoothed = tf.nn.depthwise_conv2d(images, tf.tile(kernel[..., None, None], [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")
    # The borders stay as they are.
    details = tf.pad(images[:, 1:-1, 1:-1] - smoothed, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return _pixels(images + _each(amounts) * details)


def _solarize(images: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    return tf.where(_floats(images) < _each(thresholds), images, 255 - images)


def _solarize_add(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    return tf.where(images < 128, _pixels(_floats(images) + _each(amounts)), images)


def _autocontrast(images: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    images = _floats(images)
    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = 255 / (high - low)
    return _pixels(tf.where(high > low, images * scale - low * scale, images))


def _posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    masks = tf.constant([256 - 2 ** (8 - kept) for kept in range(9)], tf.uint8)
    return tf.bitwise.bitwise_and(images, _each(tf.gather(masks, tf.cast(bits, tf.int32))))


def _equalize(images: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    count, height, width, _ = tf.unstack(tf.shape(images))
    levels = tf.cast(images, tf.int32)
    # One histogram for the three channels of an image, one after the other.
    bins = tf.reshape(levels + [0, 256, 512], (count, -1))
    histogram = tf.reshape(tf.math.bincount(bins, minlength=768, maxlength=768, axis=-1), (count, 3, 256))
    brightest = tf.gather(histogram, tf.reduce_max(levels, axis=(1, 2)), batch_dims=2)
    step = ((height * width - brightest) // 255)[..., None]
    table = (tf.cumsum(histogram, axis=-1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.reshape(tf.where(step > 0, tf.minimum(table, 255), tf.range(256)), (count, 768))
    return tf.reshape(tf.cast(tf.gather(table, bins, batch_dims=1), tf.uint8), tf.shape(images))


def _each(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]


def _floats(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32)


def _pixels(images: tf.Tensor) -> tf.Tensor:
    # Pillow cuts off fractions. The small addition keeps whole numbers whole.
    return tf.cast(tf.clip_by_value(images + 1e-3, 0.0, 255.0), tf.uint8)
