"""What a trained network says about images."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_mixers.inference.images import is_channels_first, normalizes, prepare_images
from keras_mixers.models import create_model, get_preset

if TYPE_CHECKING:
    from keras_mixers.data import Images  # imports TensorFlow, which prediction does without


# A network of the table and the name of its weights.
NAMED = re.compile(r"(?P<model>\w+):(?P<weights>\w+)")


def load_trained(path: str | Path, *, needs_pixels: bool = True) -> keras.Model:
    """Reads a network from a .keras file, in Keras's safe mode, or makes one of the table with its trained weights.

    Args:
        path: a file that `fit` wrote, or any other network that classifies images and knows its `pixels`; or
            `"MODEL:WEIGHTS"`, such as `"splitmixer_i_256_8:cifar10"`.
        needs_pixels: whether a network that does not know its `pixels` is refused.

    Returns:
        The network; its `class_names`, and `pixels` if they are not needed, are None if they are not known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such network.
    """
    path = Path(path)
    if not path.is_file():
        if named := NAMED.fullmatch(str(path)):
            return _make_trained(**named.groupdict())
        raise FileNotFoundError(f"There is no network at {str(path)!r}; train writes model.keras and best.keras.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is no .keras file, or was cut short; train writes model.keras and best.keras.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise ValueError(f"{str(path)!r} is damaged, or no network that can be loaded: {reason}.") from error
    if len(getattr(model, "output_shape", ())) != 2:
        raise ValueError(f"The network in {str(path)!r} gives no classes; build it with include_top=True.")
    if not hasattr(model, "pixels"):
        model.pixels = None
    if model.pixels is None and needs_pixels:
        raise ValueError(
            f"The network in {str(path)!r} does not say which pixels it takes: set model.pixels, as "
            "keras_mixers.get_preset(NAME).pixels has them, and save it again, or name them (--size, --mean, --std)."
        )
    if not hasattr(model, "class_names"):
        model.class_names = None
    return model


def _make_trained(model: str, weights: str) -> keras.Model:
    size = get_preset(model).pixels.size
    made = create_model(model, weights=weights, input_shape=(size, size, 3), data_format="channels_last")
    if not hasattr(made, "class_names"):
        made.class_names = None
    return made


def predict_images(model: keras.Model, images: Sequence[Any], batch_size: int = 32) -> np.ndarray:
    """Returns the probabilities of the classes, (images, classes).

    Args:
        model: a network that knows its pixels, as `load_trained` returns.
        images: files, or arrays (height, width, 3) with values from 0 to 255.
        batch_size: images that are computed at once.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file or an array is no image, or there are no images.
    """
    if isinstance(images, str | Path) or not len(images):
        raise ValueError(f"images must be a list of at least one image, got images={images!r}.")
    probabilities = []
    for first in range(0, len(images), batch_size):
        batch = prepare_images(model, images[first : first + batch_size])
        probabilities.append(np.exp(_log_probabilities(model, batch)))
    return np.concatenate(probabilities)


def evaluate_images(
    model: keras.Model, images: "Images", batch_size: int = 128, *, flip: bool = False
) -> dict[str, float]:
    """Returns how well a network classifies images.

    Args:
        model: a network that knows its pixels, as `load_trained` returns.
        images: images of its classes.
        batch_size: images that are computed at once.
        flip: whether the outputs for each image and for its mirror image are averaged too, as a second figure beside
            the plain one.

    Returns:
        The number of `"images"`, the shares of them, from 0 to 1, whose class is the most probable one, `"top1"`, or
        among the five most probable ones, `"top5"`, and the mean cross-entropy, `"loss"`. With `flip` also
        `"top1_flipped"`: the share for the mean of both probabilities' logarithms.

    Raises:
        ValueError: if the images have other classes, or one of them cannot be read.
    """
    from keras_mixers.data import eval_batches
    from keras_mixers.data.damaged import naming_damaged

    check_classes(model, images.class_names)
    batches = eval_batches(images, batch_size, model.pixels, normalize=not normalizes(model))
    top1, top5, loss, flipped = 0, 0, 0.0, 0
    with naming_damaged(images):
        for x, y in batches.as_numpy_iterator():
            x = np.moveaxis(x, -1, 1) if is_channels_first(model) else x
            log_probabilities, labels = _log_probabilities(model, x), y.argmax(1)
            order = np.argsort(-log_probabilities, axis=1, kind="stable")  # of equal ones the first, as Keras counts
            place = np.argmax(order == labels[:, None], axis=1)
            top1, top5 = top1 + int((place < 1).sum()), top5 + int((place < 5).sum())
            loss -= float(log_probabilities[np.arange(len(labels)), labels].sum())
            if flip:
                mirrored = _log_probabilities(model, np.flip(x, -1 if is_channels_first(model) else 2).copy())
                flipped += int(((log_probabilities + mirrored).argmax(1) == labels).sum())
    found = {
        "images": images.count,
        "top1": top1 / images.count,
        "top5": top5 / images.count,
        "loss": loss / images.count,
    }
    return {**found, "top1_flipped": flipped / images.count} if flip else found


def check_classes(model: keras.Model, class_names: Sequence[str]) -> None:
    """Refuses images of other classes than a network's."""
    known, classes = model.class_names, model.output_shape[-1]
    if len(class_names) != classes:
        raise ValueError(f"The network tells {classes} classes apart, the images have {len(class_names)}; take others.")
    for i, (name, other) in enumerate(zip(known or class_names, class_names, strict=True)):
        if name != other:
            raise ValueError(
                f"The images must be of the network's classes, but class {i} is {name!r} to the network, and {other!r} "
                "is that of the images; take others."
            )


def _log_probabilities(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    outputs = keras.ops.convert_to_numpy(model.predict_on_batch(batch)).astype("float64")
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax) or last.get_config().get("activation") in ("softmax", "sigmoid"):
        return np.log(np.maximum(outputs, np.finfo("float32").tiny))
    return log_softmax(outputs)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the classes' probabilities, (images, classes), of their logits."""
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
