"""What `weights=` takes: a file of Keras or PyTorch, or a name on the Hugging Face hub."""

import re
import tempfile
import zipfile
from pathlib import Path

import h5py
import keras

from keras_mixers.weights.hub import download
from keras_mixers.weights.state_dicts import TORCH_FILES, load_torch_weights

KERAS_FILES = (".weights.h5", ".keras")


def load_weights(model: keras.Model, weights: str | Path, *, new_head: bool = False) -> None:
    """Loads weights into a network of this library.

    Args:
        model: the network.
        weights: the path of a .weights.h5, .keras, .safetensors, .pt, .pth, .pth.tar or .bin file, or a name such as
            `"hf://timm/convmixer_768_32.in1k"`, which is downloaded once, verified and cached.
        new_head: whether the head keeps its own weights, to be trained for other classes.

    Raises:
        ValueError: if the source is none of these, or not of this network.
        OSError: if there is no such file, no such name on the hub, or the download fails.
    """
    suffixes = (*KERAS_FILES, ".safetensors", *TORCH_FILES)
    if str(weights).startswith("hf://"):
        path = download(str(weights))
    elif str(weights).endswith(suffixes):
        path = Path(weights)
    else:
        raise ValueError(
            f"weights must be None, a file ({', '.join(suffixes)}) or a name on the hub such as "
            f"'hf://timm/convmixer_768_32.in1k', got weights={str(weights)!r}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights at {str(path)!r}.")
    if path.name.endswith(KERAS_FILES):
        _load_keras_weights(model, path, new_head)
    else:
        load_torch_weights(model, path, new_head=new_head)


def _load_keras_weights(model: keras.Model, path: Path, new_head: bool) -> None:
    head = [layer for layer in model.layers if layer.name == "head"]
    try:
        with tempfile.TemporaryDirectory() as directory:
            file = path
            if path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    file = archive.extract("model.weights.h5", directory)
            # Keras checks that the file has each weight of the model, not the reverse: fewer blocks would do.
            found, expected = _count_weights(file), len(model.weights) - sum(len(layer.weights) for layer in head)
            if found != expected:
                raise ValueError(f"it has {found} weights before the head, the model {expected}")
            model.load_weights(file, objects_to_skip=head if new_head else [])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or holds the weights of another network than {model.name!r} "
            f"({str(error).splitlines()[0].rstrip('.')}); build the model with the arguments that they were saved "
            "with, and use new_head=True for other classes."
        ) from error


def _count_weights(file: str | Path) -> int:
    """Returns how many weights a .weights.h5 file has for all layers but the head, which Keras calls dense there."""
    names = []
    with h5py.File(file) as content:
        content["layers"].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum(not re.search("^dense/|seed_generator/", name) for name in names)
