"""Where each weight of a network lies in a PyTorch state dict, for each layout in which such networks are published."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Layout:
    """How a PyTorch network names its modules, for block i.

    `{i}` is the number of the block from 0, `{even}` is 2i, `{odd}` 2i + 1, `{at}` i + 3 (behind the stem's three
    modules), and `{end}` the place of the head behind all blocks, mean and flattening.

    Attributes:
        stem, spatial, channel, channel_norm, head: where each part of a network is.
        layers: the classes of this library's layers that such a network is made of.
    """

    stem: str
    spatial: str
    channel: str
    channel_norm: str
    head: str
    layers: frozenset[str]


SPLIT = {f"ChannelSplitMixer{roman}" for roman in ("I", "II", "III", "IV", "V")}

TIMM = Layout(
    stem="stem.", spatial="blocks.{i}.0.fn", channel="blocks.{i}.1", channel_norm="blocks.{i}.3", head="head",
    layers=frozenset({"PatchEmbed", "SpatialMixer2D", "ChannelMixer", "Dense"}),
)  # fmt: skip
# Both papers print their networks as one nn.Sequential.
SEQUENTIAL = Layout(
    stem="", spatial="{at}.0.fn", channel="{at}.1", channel_norm="{at}.3", head="{end}",
    layers=frozenset({"PatchEmbed", "SpatialMixer2D", "SpatialMixer1D", "ChannelMixer", *SPLIT, "Dense"}),
)  # fmt: skip
SPLITMIXER = Layout(
    stem="patch_emb.", spatial="mixer_blocks.{even}.fn", channel="mixer_blocks.{odd}.0",
    channel_norm="mixer_blocks.{odd}.2", head="head",
    layers=frozenset({"PatchEmbed", "SpatialMixer1D", *SPLIT, "Dense"}),
)  # fmt: skip
# The 3D convolution (SplitMixer Appendix C).
STRIDEMIXER = Layout(
    stem="patch_emb.", spatial="spatial_mixer.{i}.fn", channel="channel_mixer.{i}.0",
    channel_norm="channel_mixer.{i}.3", head="head.2",
    layers=frozenset({"PatchEmbed", "SpatialMixer1D", "ChannelStrideMixer", "Dense"}),
)  # fmt: skip
LAYOUTS = {"timm": (TIMM,), "convmixer": (SEQUENTIAL,), "splitmixer": (SPLITMIXER, STRIDEMIXER)}

# The modules of each layer: attribute -> name in PyTorch; `{j}` is the number of the segment from 0, `{j1}` from 1.
_SEGMENT = {"pointwise": "{channel}.mixer", "norm": "{channel_norm}"}
MODULES = {
    "PatchEmbed": {"convolution": "{stem}0", "norm": "{stem}2"},
    "SpatialMixer2D": {"convolution": "{spatial}.0", "norm": "{spatial}.2"},
    "SpatialMixer1D": {
        "width_convolution": "{spatial}.0", "width_norm": "{spatial}.2",
        "height_convolution": "{spatial}.3", "height_norm": "{spatial}.5",
    },
    "ChannelMixer": {"pointwise": "{channel}", "norm": "{channel_norm}"},
    "ChannelSplitMixerI": _SEGMENT,
    "ChannelSplitMixerII": _SEGMENT,
    "ChannelSplitMixerIII": _SEGMENT,
    "ChannelSplitMixerIV": _SEGMENT | {"pointwise": "{channel}.mixer.{j}"},
    "ChannelSplitMixerV": _SEGMENT | {"pointwise": "{channel}.mixer{j1}"},
    "ChannelStrideMixer": {"pointwise": "{channel}", "norm": "{channel_norm}"},
}  # fmt: skip

# What Keras and PyTorch call the weights of a module.
TENSORS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Place:
    """A weight of a model and its place in a state dict.

    Attributes:
        name: name of the tensor.
        weight: the weight of the model.
        shape: shape of the tensor.
        axes: the weight's axes in the order of the tensor, which may have further axes of length 1.
        in_head: whether it belongs to the head.
    """

    name: str
    weight: keras.Variable
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    in_head: bool

    def to_torch(self) -> np.ndarray:
        value = keras.ops.convert_to_numpy(self.weight.value)
        return np.ascontiguousarray(value.transpose(self.axes).reshape(self.shape))

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        squeezed = tensor.reshape([self.weight.shape[axis] for axis in self.axes])
        return np.ascontiguousarray(squeezed.transpose(np.argsort(self.axes)))


def find_places(model: keras.Model, layout: str) -> list[Place]:
    """Returns the place of each weight of `model` in a state dict of this layout, in the order of its layers.

    Raises:
        ValueError: if the model is none of this library's, or the layout has no place for one of its layers.
    """
    names, places = _choose(model, layout), []
    for layer in model.layers:
        if layer.name == "head":
            places += _places_of(layer, head_module(model, layout), in_head=True)
        elif type(layer).__name__ in names.layers:
            modules = _format(names, model, _block_of(layer) or 0)
            for attribute, module in MODULES[type(layer).__name__].items():
                parts = getattr(layer, attribute)
                for j, part in enumerate(parts if isinstance(parts, list) else [parts]):
                    name = module.format(**modules, j=j, j1=j + 1)
                    places += _places_of(part, name, along_channels=names is STRIDEMIXER)
    return places


def head_module(model: keras.Model, layout: str) -> str:
    """Returns the name of the head in a state dict of this layout, also for a model without one."""
    return _format(_choose(model, layout), model, 0)["head"]


def _choose(model: keras.Model, layout: str) -> Layout:
    """Returns the first alternative of a layout that has a place for every layer of the model."""
    names = {layer.name for layer in model.layers}
    if "patch_embed" not in names or not any(name.startswith("block_0_") for name in names):
        raise ValueError(
            f"model must be a network of this library, such as keras_mixers.ConvMixer(...), got {model.name!r}, "
            "which has no layers patch_embed and block_0_spatial or block_0_channel."
        )
    kinds = {type(layer).__name__ for layer in model.layers if layer.weights}
    for alternative in LAYOUTS[layout]:
        if kinds <= alternative.layers:
            return alternative
    raise ValueError(
        f"layout {layout!r} has no place for {', '.join(sorted(kinds - LAYOUTS[layout][0].layers))} of model "
        f"{model.name!r}; choose another of {', '.join(map(repr, LAYOUTS))}, or save the model with model.save."
    )


def _block_of(layer: keras.layers.Layer) -> int | None:
    block = re.fullmatch(r"block_(\d+)_(?:spatial|channel)", layer.name)
    return int(block[1]) if block else None


def _format(names: Layout, model: keras.Model, i: int) -> dict[str, str]:
    """Returns the names of the modules of block i."""
    blocks = 1 + max(block for layer in model.layers if (block := _block_of(layer)) is not None)
    fields = {"i": i, "even": 2 * i, "odd": 2 * i + 1, "at": i + 3, "end": blocks + 5}
    parts = ("stem", "spatial", "channel", "channel_norm", "head")
    return {part: getattr(names, part).format(**fields) for part in parts}


def _places_of(
    part: keras.layers.Layer | None, module: str, in_head: bool = False, along_channels: bool = False
) -> Iterator[Place]:
    for weight in part.weights if part is not None else ():
        shape = tuple(weight.shape)
        if len(shape) == 1:
            tensor_shape, axes = shape, (0,)
        elif len(shape) == 2:  # (inputs, outputs): a linear layer, a 1 × 1 or a 3D convolution
            inputs, outputs = shape
            ones = () if in_head else (1, 1)
            tensor_shape, axes = (outputs, *((1,) if along_channels else ()), inputs, *ones), (1, 0)
        else:
            depthwise = isinstance(part, keras.layers.DepthwiseConv2D)
            axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
            tensor_shape = tuple(shape[axis] for axis in axes)
        yield Place(f"{module}.{TENSORS[weight.name]}", weight, tensor_shape, axes, in_head)
