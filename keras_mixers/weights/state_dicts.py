"""PyTorch state dicts <-> models: the weights that both papers' authors and timm publish, in their layouts."""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy

from keras_mixers.layers.validation import check_choice
from keras_mixers.weights.layouts import LAYOUTS, Place, find_places, head_module

# The first tensor tells the layout.
FIRST = {f"{layout.stem}.weight": name for name, layouts in LAYOUTS.items() for layout in layouts}
# What nn.DataParallel, torch.compile and training loops put in front of every name.
WRAPPERS = r"(?:module\.|_orig_mod\.|model\.)*"
TORCH_FILES = (".pt", ".pth", ".pth.tar", ".bin")


def load_torch_weights(model: keras.Model, source: Mapping[str, Any] | str | Path, *, new_head: bool = False) -> None:
    """Loads the weights of a PyTorch network into `model`, on any backend and in either data format.

    The layout is recognised: timm's ConvMixer or MlpMixer, the `nn.Sequential` of both papers, or the modules of
    SplitMixer's or ResMLP's authors, also behind `module.` and inside `{"state_dict": ...}`. A model without a head
    skips the file's.

    Args:
        model: a network of this library.
        source: tensors or arrays by name, or the path of a .safetensors, .pt, .pth, .pth.tar or .bin file. All but
            .safetensors need PyTorch, and are read without running any code that they may hold.
        new_head: whether the head keeps its own weights, to be trained for other classes.

    Raises:
        ValueError: if the layout is none of these, or a tensor is missing, left over or of another shape; the model
            then stays as it was.
        FileNotFoundError: if there is no such file.
        ImportError: if the package that reads the file is not installed.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.ConvMixer(dim=8, depth=2, kernel_size=3, patch_size=2, num_classes=5)
        >>> state = {**to_torch_state_dict(model, "timm"), "head.bias": np.zeros(3)}
        >>> load_torch_weights(model, state)
        Traceback (most recent call last):
        ValueError: The source (timm layout) has head.bias (3,) where the model has (5,): use new_head=True to train a
        head for other classes.
    """
    layout, tensors = recognize(source if isinstance(source, Mapping) else read_tensors(source))
    places = find_places(model, layout)
    if new_head or not any(place.in_head for place in places):
        places = [place for place in places if not place.in_head]
        head = head_module(model, layout) + "."
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    _check(places, tensors, layout)
    values = [place.from_torch(_to_numpy(tensors[place.name])) for place in places]
    for place, value in zip(places, values, strict=True):
        place.weight.assign(value)


def to_torch_state_dict(model: keras.Model, layout: str) -> dict[str, Any]:
    """Returns the weights of `model` as a PyTorch network has them, for its `load_state_dict`.

    Args:
        model: a network of this library, on any backend.
        layout: `"timm"`, `"convmixer"` (the `nn.Sequential` of both papers), `"splitmixer"` or `"resmlp"` (the modules
            of SplitMixer's and of ResMLP's authors).

    Returns:
        A dict of `torch.Tensor` on the CPU, float32, by name. `num_batches_tracked`, which Keras does not count, is 0.

    Raises:
        ValueError: if the layout is none of these, or has no place for one of the model's layers.
        ImportError: if PyTorch is not installed.

    Example:
        >>> import keras_mixers
        >>> state = to_torch_state_dict(keras_mixers.SplitMixerI(dim=8, blocks=2), "splitmixer")
        >>> state["mixer_blocks.1.0.mixer.weight"].shape
        torch.Size([5, 5, 1, 1])
    """
    check_choice("layout", layout, tuple(LAYOUTS))
    torch = _import_torch("to_torch_state_dict")
    state = {}
    for place in find_places(model, layout):
        state[place.name] = torch.from_numpy(place.to_torch().astype("float32", copy=True))
        if place.name.endswith("running_var"):
            state[place.name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return state


def recognize(source: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the layout of a state dict, and its tensors without wrappers and without `num_batches_tracked`."""
    for candidate in (source, *(value for value in source.values() if isinstance(value, Mapping))):
        for first, layout in FIRST.items():
            for name in candidate:
                if match := re.fullmatch(f"({WRAPPERS}){re.escape(first)}", str(name)):
                    tensors = {str(name).removeprefix(match[1]): tensor for name, tensor in candidate.items()}
                    return layout, {name: tensors[name] for name in tensors if not name.endswith("num_batches_tracked")}
    names = ", ".join(map(repr, list(source)[:5])) or "nothing"
    raise ValueError(
        f"The source holds {names}, which is the state dict of neither a ConvMixer nor a SplitMixer nor one of "
        f"MLP-Mixer's family; its first tensor should be one of {', '.join(FIRST)}."
    )


def read_tensors(path: str | Path) -> Mapping[str, Any]:
    """Reads a .safetensors file or a PyTorch checkpoint, without running any code that it may hold."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights at {str(path)!r}.")
    if path.name.endswith(".safetensors"):
        with intact(path):
            return safetensors.numpy.load_file(path)
    if not path.name.endswith(TORCH_FILES):
        raise ValueError(f"source must be a .safetensors, {', '.join(TORCH_FILES)} file, got source={str(path)!r}.")
    torch = _import_torch(f"Reading {str(path)!r}")
    try:
        # timm's training script keeps its arguments as a Namespace, which holds values only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or holds more than tensors, and is not unpickled, since that could run code "
            "from it; save its state dict alone, best as .safetensors."
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{str(path)!r} holds a {type(checkpoint).__name__}, not a state dict; save that alone.")
    return checkpoint


@contextmanager
def intact(path: str | Path) -> Iterator[None]:
    """Turns what safetensors raises about a damaged file into one sentence."""
    try:
        yield
    except safetensors.SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged or no safetensors file ({error}); fetch it again.") from error


def _import_torch(what: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{what} needs PyTorch, which is not installed: pip install torch.") from error
    return torch


def _to_numpy(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):  # a torch.Tensor; NumPy has no bfloat16
        tensor = tensor.detach().cpu().float().numpy()
    return np.array(tensor, "float32")  # a copy: JAX may keep the very memory, which PyTorch then trains


def _check(places: list[Place], tensors: Mapping[str, Any], layout: str) -> None:
    """Refuses tensors that are not exactly those of `places`."""
    expected = {place.name: place.shape for place in places}
    found = {name: tuple(getattr(tensor, "shape", np.shape(tensor))) for name, tensor in tensors.items()}
    faults = {
        "lacks {}": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
        "has {} left over": [f"{name} {shape}" for name, shape in found.items() if name not in expected],
        "has {}": [
            f"{name} {found[name]} where the model has {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
    }
    if not any(faults.values()):
        return
    advice = "build the model with the arguments that the weights were trained with"
    if expected.keys() == found.keys() and all(p.in_head or found[p.name] == p.shape for p in places):
        advice = "use new_head=True to train a head for other classes"
    listed = ", ".join(fault.format(_enumerate(items)) for fault, items in faults.items() if items)
    raise ValueError(f"The source ({layout} layout) {listed}: {advice}.")


def _enumerate(items: list[str], limit: int = 8) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
