"""Which part of an image is seen, and at which size. Images are uint8 (height, width, 3)."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_mixers.data.augmentation_settings import Augmentation
from keras_mixers.models.image_spec import ImageSpec


def random_boxes(
    count: Any, scale: Sequence[float], ratio: Sequence[float], height: Any, width: Any, seed: Any
) -> tf.Tensor:
    """Random rectangles inside an image, as (top, left, height, width), int32 (count, 4).

    The area's share of the image is uniform in `scale`, the logarithm of width / height uniform in that of `ratio`.
    The first of ten draws that fits in the image is taken; if none does, the first one is cut to the image.
    """
    area_seed, ratio_seed, place_seed = tf.unstack(tf.random.split(seed, 3))
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    areas = tf.random.stateless_uniform([count, 10], area_seed, *scale) * tf.reduce_prod(sides)
    log_ratios = tf.random.stateless_uniform([count, 10], ratio_seed, *map(math.log, ratio))
    boxes = tf.round(tf.sqrt(areas[..., None] * tf.exp(log_ratios[..., None] * [-1.0, 1.0])))
    fits = tf.reduce_all((boxes >= 1) & (boxes <= sides), axis=-1)
    boxes = tf.gather(boxes, tf.argmax(tf.cast(fits, tf.int32), axis=1), batch_dims=1)
    boxes = tf.clip_by_value(boxes, 1.0, sides)
    corners = tf.floor(tf.random.stateless_uniform([count, 2], place_seed) * (sides - boxes + 1))
    return tf.cast(tf.concat([corners, boxes], axis=1), tf.int32)


def random_crop(image: tf.Tensor, size: int, augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """The part of an image that training sees, as `augmentation` says, (size, size, 3)."""
    if augmentation.crop_scale:
        height, width = tf.unstack(tf.shape(image)[:2])
        boxes = random_boxes(1, augmentation.crop_scale, augmentation.crop_ratio, height, width, seed)
        top, left, height, width = tf.unstack(boxes[0])
        return resize(image[top : top + height, left : left + width], (size, size), "bilinear")
    image = resize_shorter_side(image, augmentation.resize or size, "bilinear")
    room = tf.cast(tf.shape(image)[:2] - size + 1, tf.float32)
    return _cut(image, tf.cast(tf.random.stateless_uniform([2], seed) * room, tf.int32), size)


def random_crops(images: tf.Tensor, augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """`random_crop` of images (n, size, size, 3) that have the wanted size already, in one operation.

    Such crops are only enlarged, which needs no antialiasing. At a crop's edge the image beyond it is interpolated.
    """
    if not augmentation.crop_scale:
        return images
    count, height, width, _ = tf.unstack(tf.shape(images))
    boxes = random_boxes(count, augmentation.crop_scale, augmentation.crop_ratio, height, width, seed)
    corners, boxes = tf.split(tf.cast(boxes, tf.float32), 2, axis=1)
    scale = boxes / tf.cast(tf.stack([height, width]), tf.float32)
    # From centre to centre of the pixels: the first one lies half a pixel inside the box.
    (y_scale, x_scale), (y, x) = tf.unstack(scale, axis=1), tf.unstack(corners + scale / 2 - 0.5, axis=1)
    cropped = affine(tf.cast(images, tf.float32), [x_scale, 0.0, x, 0.0, y_scale, y], "BILINEAR", "NEAREST")
    return tf.cast(tf.round(cropped), tf.uint8)


def random_translation(images: tf.Tensor, largest: int, seed: Any) -> tf.Tensor:
    """Moves each image (n, height, width, 3) by up to `largest` pixels along both axes; edges are reflected."""
    count, height, width, _ = tf.unstack(tf.shape(images))
    corners = tf.random.stateless_uniform([count, 2], seed, 0, 2 * largest + 1, tf.int32)
    around = [largest, largest]
    padded = tf.pad(images, [[0, 0], around, around, [0, 0]], "REFLECT")
    rows, columns = corners[:, :1] + tf.range(height), corners[:, 1:] + tf.range(width)
    moved = tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    return tf.ensure_shape(moved, images.shape)


def affine(images: tf.Tensor, coefficients: Sequence[Any], interpolation: str, fill_mode: str) -> tf.Tensor:
    """Takes each output pixel (x, y) from the input (n, height, width, channels) at (a x + b y + c, d x + e y + f).

    Each coefficient is a number or float32 (n,); whole coordinates are centres of pixels. `interpolation` is "NEAREST"
    or "BILINEAR"; `fill_mode` beyond the image "CONSTANT" (black) or "NEAREST".
    """
    count = tf.shape(images)[0]
    matrices = tf.stack([tf.broadcast_to(value, [count]) for value in (*coefficients, 0.0, 0.0)], axis=1)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode=fill_mode,
    )
    return tf.ensure_shape(moved, images.shape)


def center_crop(image: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """`ImageSpec.crop` of a tensor: the square at the centre of an image, once its shorter side is resized."""
    image = resize_shorter_side(image, spec.shorter_side, spec.interpolation)
    room = tf.shape(image)[:2] - spec.size
    return _cut(image, tf.cast(tf.round(room / 2), tf.int32), spec.size)


def resize_shorter_side(image: tf.Tensor, size: int, method: str) -> tf.Tensor:
    """Resizes an image so that its shorter side has this size; an image that has it stays as it is."""
    shape = tf.shape(image)[:2]
    height, width = tf.unstack(shape * size // tf.reduce_min(shape))
    # Along one axis at a time and rounded after each, as Pillow does.
    return resize(resize(image, (shape[0], width), method), (height, width), method)


def resize(image: tf.Tensor, shape: Any, method: str) -> tf.Tensor:
    """Resizes an image to (height, width) with antialiasing."""
    # TensorFlow resizes to floats, whose fractions and overshoots 8 bits cannot hold.
    return tf.saturate_cast(tf.round(tf.image.resize(image, shape, method, antialias=True)), tf.uint8)


def _cut(image: tf.Tensor, corner: tf.Tensor, size: int) -> tf.Tensor:
    top, left = tf.unstack(corner)
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))
