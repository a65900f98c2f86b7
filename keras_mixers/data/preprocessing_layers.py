"""Preprocessing layers of Keras and KerasCV in place of this library's augmentation."""

import ast
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

LIBRARIES = ("keras", "keras_cv")  # where a recipe may take layers from
# A layer that has one of these changes labels too (MixUp), or at least takes them.
OF_LABELS = ("transform_labels", "augment_labels", "augment_label")


def read_layer(text: str) -> tuple[str, str, dict[str, Any]]:
    """Returns library, class and arguments of a layer that a recipe names; arguments are keywords with plain values.

    Example:
        >>> read_layer("keras.RandomFlip(mode='horizontal')")
        ('keras', 'RandomFlip', {'mode': 'horizontal'})
    """
    try:
        call = ast.parse(text, mode="eval").body
        library, name = call.func.value.id, call.func.attr
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if call.args or None in arguments or library not in LIBRARIES:
            raise ValueError
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            "layers must be named as in 'keras_cv.RandAugment(value_range=(0, 255))', a class of keras.layers or "
            f"keras_cv.layers with keyword arguments, got {text!r}."
        ) from error
    return library, name, arguments


def make_layer(text: str) -> keras.Layer:
    """Makes the layer that a recipe names; see `read_layer`."""
    library, name, arguments = read_layer(text)
    if importlib.util.find_spec(library) is None:
        raise ImportError(f'{text!r} needs KerasCV, which is not installed: pip install "keras-mixers[train]".')
    layers = importlib.import_module(library).layers
    kind = getattr(layers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, keras.Layer)):
        raise ValueError(f"{library}.layers has no layer {name!r}, got {text!r}; its documentation lists them.")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is refused by its layer: {str(error).splitlines()[0]}") from error


def check_layers(layers: Sequence[Any]) -> None:
    """Refuses what is no list of layers or functions."""
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(map(callable, layers)):
        raise ValueError(f"layers must be a list of preprocessing layers of Keras or KerasCV, got layers={layers!r}.")


def apply_layers(
    layers: Sequence[Callable[..., Any]], images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Calls layers in turn on images (n, height, width, 3) from 0 to 255 and one-hot labels (n, classes).

    Layers that know labels (KerasCV's, and Keras's augmentations) get `{"images": ..., "labels": ...}`, all others, and
    functions, the images alone. The result is float32.
    """
    batch = {"images": tf.cast(images, tf.float32), "labels": tf.cast(labels, tf.float32)}
    for layer in layers:
        call = tf.function(layer)  # KerasCV's layers need AutoGraph, which the pipeline does without
        takes_labels = any(hasattr(layer, name) for name in OF_LABELS)
        changed = call(batch) if takes_labels else {**batch, "images": call(batch["images"])}
        batch = {name: tf.cast(changed[name], tf.float32) for name in batch}
    return tf.ensure_shape(batch["images"], images.shape), batch["labels"]
