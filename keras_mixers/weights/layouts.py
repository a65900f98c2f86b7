"""Where each weight of a network lies in a PyTorch state dict, for each layout in which such networks are published."""

import string
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import keras
import numpy as np

from keras_mixers.layers.normalization import Affine


@dataclass(frozen=True)
class Layout:
    """The modules of each part of a PyTorch network; a layer's `torch_layouts` name the layouts that have it.

    `{i}` is the number of a block from 0, `{even}` is 2i, `{odd}` 2i + 1, `{at}` i + 3 (behind the stem's three
    modules), and `{end}` the place of the head behind all blocks, mean and flattening. An empty name means that there
    is no such part. The scales are parameters, not modules.
    """

    name: str
    stem: str
    stem_norm: str
    spatial: str
    channel: str
    channel_norm: str
    head: str
    spatial_norm: str = ""
    spatial_scale: str = ""
    channel_scale: str = ""
    norm: str = ""  # before the mean
    kernel_axes: tuple[int, ...] = (1, 1)  # what follows (outputs, inputs) in the shape of a product's kernel
    affine_axes: tuple[int, ...] = ()  # what precedes (channels,) in that of an affine norm's weights

    def modules(self, model: keras.Model, i: int) -> dict[str, str]:
        """Returns the names of the modules of block i."""
        fields = {"i": i, "even": 2 * i, "odd": 2 * i + 1, "at": i + 3, "end": len(model.blocks) + 5}
        parts = {part: name for part, name in asdict(self).items() if isinstance(name, str)}
        return {part: name.format(**fields) for part, name in parts.items()}


def _of_timms_mlp_mixer(name: str, **others: str) -> Layout:
    """Makes one of the layouts of timm's MlpMixer, whose blocks are of three kinds."""
    names = {
        "stem": "stem.proj", "stem_norm": "stem.norm", "spatial": "", "channel": "blocks.{i}.mlp_channels",
        "channel_norm": "blocks.{i}.norm2", "head": "head", "spatial_norm": "blocks.{i}.norm1", "norm": "norm",
    }  # fmt: skip
    return Layout(name, **{**names, **others}, kernel_axes=(), affine_axes=(1, 1))


LAYOUTS = {
    "timm": (
        Layout("timm", "stem.0", "stem.2", "blocks.{i}.0.fn", "blocks.{i}.1", "blocks.{i}.3", "head"),
        _of_timms_mlp_mixer("timm_mixer", spatial="blocks.{i}.mlp_tokens"),
        _of_timms_mlp_mixer("timm_resmlp", spatial="blocks.{i}.linear_tokens", spatial_scale="blocks.{i}.ls1",
                            channel_scale="blocks.{i}.ls2"),
        _of_timms_mlp_mixer("timm_gmlp", channel_norm="blocks.{i}.norm"),
    ),
    # Both papers print their networks as one nn.Sequential.
    "convmixer": (Layout("convmixer", "0", "2", "{at}.0.fn", "{at}.1", "{at}.3", "{end}"),),
    "splitmixer": (
        Layout("splitmixer", "patch_emb.0", "patch_emb.2", "mixer_blocks.{even}.fn", "mixer_blocks.{odd}.0",
               "mixer_blocks.{odd}.2", "head"),
        # The 3D convolution (SplitMixer Appendix C).
        Layout("stridemixer", "patch_emb.0", "patch_emb.2", "spatial_mixer.{i}.fn", "channel_mixer.{i}.0",
               "channel_mixer.{i}.3", "head.2"),
    ),
    # ResMLP's authors.
    "resmlp": (
        Layout("resmlp", "patch_embed.proj", "", "blocks.{i}.attn", "blocks.{i}.mlp", "blocks.{i}.norm2", "head",
               "blocks.{i}.norm1", "blocks.{i}.gamma_1", "blocks.{i}.gamma_2", "norm", kernel_axes=()),
    ),
}  # fmt: skip

# What Keras and PyTorch call the weights of a module.
TENSORS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
           "moving_variance": "running_var"}  # fmt: skip
AFFINE_TENSORS = {"gamma": "alpha", "beta": "beta"}


@dataclass(frozen=True)
class Place:
    """A weight of a model, and the name and shape of its tensor in a state dict.

    `axes` are the weight's in the order of the tensor, which may have further ones of length 1.
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
    chosen, places = _choose(model, layout), []
    in_blocks = [(i, layer) for i, block in enumerate(model.blocks) for layer in block if layer.weights]
    for i, layer in [(0, model.embedding), *in_blocks]:
        for attribute, module in layer.torch_modules.items():
            for j, part in enumerate(_parts(layer, attribute)):
                places += _places_of(part, module.format(**chosen.modules(model, i), j=j, j1=j + 1), chosen)
    places += _places_of(model.norm, chosen.norm, chosen)
    if model.head is not None:
        places += _places_of(model.head, head_module(model, layout), chosen, in_head=True)
    return places


def head_module(model: keras.Model, layout: str) -> str:
    """Returns the name of the head in a state dict of this layout, also for a model without one."""
    return _choose(model, layout).modules(model, 0)["head"]


def _choose(model: keras.Model, layout: str) -> Layout:
    """Returns the first alternative of a layout that has a place for every layer of the model."""
    if not getattr(model, "blocks", None):
        raise ValueError(
            f"model must be a network of this library, such as keras_mixers.ConvMixer(...), got {model.name!r} of "
            f"{type(model).__name__}."
        )
    layers = [layer for layer in model.layers if layer.weights and layer is not model.head]
    homeless = []
    for alternative in LAYOUTS[layout]:
        homeless.append({type(each).__name__ for each in layers if not _has_place(each, alternative, model)})
        if not homeless[-1]:
            return alternative
    fewest = min(homeless, key=len)
    raise ValueError(
        f"layout {layout!r} has no place for {', '.join(sorted(fewest))} of model {model.name!r}; choose another "
        f"of {', '.join(map(repr, LAYOUTS))}, or save the model with model.save."
    )


def _has_place(layer: keras.layers.Layer, layout: Layout, model: keras.Model) -> bool:
    """Tells whether a layout has a place for every weight of a layer."""
    if layer is model.norm:
        return bool(layout.norm)
    if layout.name not in getattr(layer, "torch_layouts", ()):
        return False
    housed = 0
    for attribute, module in layer.torch_modules.items():
        weights = sum(1 if isinstance(part, keras.Variable) else len(part.weights) for part in _parts(layer, attribute))
        fields = {field for _, field, _, _ in string.Formatter().parse(module) if field} - {"j", "j1"}
        housed += weights if all(getattr(layout, field) for field in fields) else 0
    return housed == len(layer.weights)


def _parts(layer: keras.layers.Layer, attribute: str) -> list[keras.layers.Layer | keras.Variable]:
    """Returns the layers or weights that an attribute of a layer holds: one, several or none."""
    parts = getattr(layer, attribute)
    return [part for part in (parts if isinstance(parts, list) else [parts]) if part is not None]


def _places_of(
    part: keras.layers.Layer | keras.Variable | None, module: str, layout: Layout, in_head: bool = False
) -> Iterator[Place]:
    if isinstance(part, keras.Variable):
        yield Place(module, part, tuple(part.shape), tuple(range(len(part.shape))), in_head)
        return
    affine = isinstance(part, Affine)
    for weight in part.weights if part is not None else ():
        shape = tuple(weight.shape)
        depthwise = isinstance(part, keras.layers.DepthwiseConv2D)
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)}[len(shape)]
        tensor_shape = tuple(shape[axis] for axis in axes)
        if len(shape) == 2 and not in_head:  # a 1 × 1 or a 3D convolution: (outputs, inputs) in PyTorch
            outputs, inputs = tensor_shape
            along_channels = layout.name == "stridemixer"
            tensor_shape = (outputs, 1, inputs, 1, 1) if along_channels else (outputs, inputs, *layout.kernel_axes)
        name = (AFFINE_TENSORS if affine else TENSORS)[weight.name]
        yield Place(
            f"{module}.{name}", weight, (*layout.affine_axes, *shape) if affine else tensor_shape, axes, in_head
        )
