"""Trained weights that come with the package: a safetensors file for each network and data set, with its card."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import safetensors
import safetensors.numpy

from keras_mixers.layers.validation import check_choice
from keras_mixers.weights.layouts import find_places
from keras_mixers.weights.state_dicts import intact

FOLDER = Path(__file__).parent / "trained"
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class WeightsCard:
    """What a set of trained weights says of itself.

    Args:
        model: name of the network in the table.
        dataset: name of the data set.
        class_names: names of the classes, in the order of the outputs.
        pixels: the images that the network takes, the fields of an `ImageSpec`.
        top1: top-1 accuracy in percent on the test images, of the weights as they are stored.
        top1_flipped: the same, averaged over each image and its mirror image.
        published: the accuracy in percent that a paper reports for this run, None if it reports none.
        recipe: name of the recipe.
        changes: fields of the recipe that were changed.
        epochs: number of epochs.
        seed: seed of the run.
        minutes: how long it took.
        machine: hardware and software of the run.
        command: what carries it out.
        commit: version of this library that carried it out.
        stored_as: `"float16"` or `"float32"`.
    """

    model: str
    dataset: str
    class_names: tuple[str, ...]
    pixels: Mapping[str, Any]
    top1: float
    top1_flipped: float
    published: float | None
    recipe: str
    changes: str
    epochs: int
    seed: int
    minutes: float
    machine: str
    command: str
    commit: str
    stored_as: str


def packaged_weights(model: str) -> dict[str, str]:
    """Returns the files that come with the package for a network of the table, by data set."""
    return {path.name.split(".")[1]: str(path) for path in sorted(FOLDER.glob(f"{model}.*.safetensors"))}


def read_card(path: str | Path) -> WeightsCard | None:
    """Returns the card of a file of weights, None if it has none; a damaged file raises a ValueError."""
    with intact(path), safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    if "card" not in metadata:
        return None
    card = json.loads(metadata["card"])
    return WeightsCard(**{**card, "class_names": tuple(card["class_names"])})


def write_weights(model: keras.Model, card: WeightsCard, folder: str | Path = FOLDER) -> Path:
    """Writes the weights of a network with their card, in the first of PyTorch's layouts that has a place for each.

    Returns:
        The path of the file, `folder/MODEL.DATASET.safetensors`.

    Raises:
        ValueError: if `card.stored_as` is no dtype to store, or no layout has a place for the network.
    """
    check_choice("stored_as", card.stored_as, DTYPES)
    for layout in ("timm", "splitmixer", "convmixer"):
        with suppress(ValueError):
            places = find_places(model, layout)
            break
    else:
        places = find_places(model, layout)  # says what has no place
    path = Path(folder) / f"{card.model}.{card.dataset}.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {place.name: place.to_torch().astype(card.stored_as) for place in places}
    # Not save_file, which makes files that only their owner may read.
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"card": json.dumps(asdict(card))}))
    return path


def round_weights(model: keras.Model, dtype: str) -> None:
    """Rounds the weights of a network to what a file in `dtype` keeps of them."""
    for weight in model.weights:
        weight.assign(keras.ops.convert_to_numpy(weight.value).astype(dtype).astype("float32"))
