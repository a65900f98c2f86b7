"""What a trained network says about images."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_mixers.inference.images import check_list, is_channels_first, normalizes, prepare_images
from keras_mixers.models import create_model, get_preset

if TYPE_CHECKING:
    from keras_mixers.data import Images  # imports TensorFlow, which prediction does without


def load_trained(path: str | Path, *, needs_pixels: bool = True) -> keras.Model:
    """Reads a network from a .keras file, in Keras's safe mode, or makes one of the table with its trained weights.

    Args:
        path: a file that `fit` wrote, or any other network that classifies images; or `"MODEL:WEIGHTS"`, such as
            `"convmixer_256_8_p2_k5:cifar10"`.
        needs_pixels: whether a network that does not know its `pixels` is refused.

    Returns:
        The network; its `class_names` and `pixels` are None if they are not known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such network.
    """
    path = Path(path)
    if not path.is_file():
        if named := re.fullmatch(r"(\w+):(\w+)", str(path)):
            name, weights = named.groups()
            side = get_preset(name).pixels.size
            return create_model(name, weights=weights, input_shape=(side, side, 3), data_format="channels_last")
        raise FileNotFoundError(f"There is no network at {str(path)!r}; train writes model.keras and best.keras.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is no .keras file, or was cut short; train writes model.keras and best.keras.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras's error depends on where a file is damaged
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise ValueError(f"{str(path)!r} is damaged, or no network that can be loaded: {reason}.") from error
    if len(getattr(model, "output_shape", ())) != 2:
        raise ValueError(f"The network in {str(path)!r} gives no classes; build it with include_top=True.")
    for known in ("pixels", "class_names"):
        if not hasattr(model, known):
            setattr(model, known, None)
    if model.pixels is None and needs_pixels:
        raise ValueError(
            f"The network in {str(path)!r} does not say which pixels it takes: set model.pixels, as "
            "keras_mixers.get_preset(NAME).pixels has them, and save it again, or name them (--size, --mean, --std)."
        )
    return model


def predict_images(model: keras.Model, images: Sequence[Any], batch_size: int = 32) -> np.ndarray:
    """Returns the probabilities of the classes, (images, classes).

    Args:
        model: a network that knows its pixels, as `load_trained` returns.
        images: files, or arrays (height, width, 3) with values from 0 to 255.
        batch_size: number of images that are computed at once.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file or an array is no image, or there are no images.
    """
    check_list(images)
    batches = (prepare_images(model, images[i : i + batch_size]) for i in range(0, len(images), batch_size))
    return np.concatenate([np.exp(_log_probabilities(model, batch)) for batch in batches])


def evaluate_images(
    model: keras.Model, images: "Images", batch_size: int = 128, *, flip: bool = False
) -> dict[str, float]:
    """Returns how well a network classifies images.

    Args:
        model: a network that knows its pixels, as `load_trained` returns.
        images: images of its classes.
        batch_size: number of images that are computed at once.
        flip: whether outputs are also averaged over each image and its mirror image.

    Returns:
        The number of `"images"`, the shares of them, from 0 to 1, whose class is the most probable, `"top1"`, or among
        the five most probable, `"top5"`, and the mean cross-entropy, `"loss"`. With `flip` also `"top1_flipped"`: the
        share for the mean of both log probabilities.

    Raises:
        ValueError: if the images have other classes, or one of them cannot be read.
    """
    from keras_mixers.data import eval_batches
    from keras_mixers.data.damaged import naming_damaged

    check_classes(model, images.class_names)
    batches = eval_batches(images, batch_size, model.pixels, normalize=not normalizes(model))
    sums = {"top1": 0, "top5": 0, "loss": 0.0, **({"top1_flipped": 0} if flip else {})}
    with naming_damaged(images):
        for x, y in batches.as_numpy_iterator():
            x = np.moveaxis(x, -1, 1) if is_channels_first(model) else x
            log_probabilities, labels = _log_probabilities(model, x), y.argmax(1)
            order = np.argsort(-log_probabilities, axis=1, kind="stable")  # of equal ones the first, as Keras counts
            place = np.argmax(order == labels[:, None], axis=1)
            sums["top1"] += int((place < 1).sum())
            sums["top5"] += int((place < 5).sum())
            sums["loss"] -= float(log_probabilities[np.arange(len(labels)), labels].sum())
            if flip:
                mirrored = _log_probabilities(model, np.flip(x, -1 if is_channels_first(model) else 2).copy())
                sums["top1_flipped"] += int(((log_probabilities + mirrored).argmax(1) == labels).sum())
    return {"images": images.count, **{name: total / images.count for name, total in sums.items()}}


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
