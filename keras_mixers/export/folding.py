"""A network for inference: plain Keras layers, its norms folded into their neighbours as far as that is exact.

In inference a batch norm is `scale * x + shift`, with two numbers a channel. It stands behind the activation here, so
that it cannot go into the convolution before it. What can be done exactly:

- The last norm goes into the head: a mean and a product of matrices are linear.
- A pointwise convolution takes a scale and a shift: they change its kernel and its bias.
- A depthwise convolution takes a scale, but no shift: the zeros around the image are not shifted. Of the norm before
  it, a sum with `shift / scale` is left.
- A residual sum `(a * x + b) + z` is computed in units of a: it is `a * (x + u) + b` with `u = z / a`. The norm before
  z is computed in these units, and what follows the sum takes a and b. So the norm at the end of a residual branch
  costs nothing.

What remains is that sum, a multiply-add before each block, whose input goes into a depthwise convolution and into a
residual, and one for the channels that a split mixer leaves unmixed, since an activation comes next.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers.layers import (
    ChannelMixer,
    ChannelSplitMixer,
    ChannelStrideMixer,
    NormalizePixels,
    PatchEmbed,
    SpatialMixer1D,
    SpatialMixer2D,
)
from keras_mixers.models.network import Network

# A branch's scales are not divided by if one is smaller than this part of the largest: rounding errors would grow.
SMALLEST_SCALE = 1e-3


def fold(model: keras.Model) -> keras.Model:
    """Returns a network for inference alone, with equal outputs and fewer operations.

    It consists of plain Keras layers: a .keras file of it can be loaded without this library. It is what
    `export_model` hands to other runtimes; within Keras the network itself is faster, as its layers compute activation,
    norm and residual in one pass.

    Args:
        model: a network of this library; it stays as it is.

    Returns:
        A functional model with the inputs and outputs of `model`, in float32.

    Raises:
        ValueError: if `model` is not a network of this library, has a mixer of another, or was quantised.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.SplitMixerI(dim=16, blocks=2, data_format="channels_last")
        >>> images = np.ones((1, 32, 32, 3), "float32")
        >>> difference = fold(model).predict(images, verbose=0) - model.predict(images, verbose=0)
        >>> bool(np.abs(difference).max() < 1e-5)
        True
    """
    return lower(model)


@dataclass(frozen=True)
class Form:
    """How a network is written out in plain layers.

    Attributes:
        data_format: layout of the feature maps; the images keep that of the network.
        multiply_add: the layer of a norm that remains: `"norm"`, a batch norm, or `"depthwise"`, a 1 × 1 depthwise
            convolution, which LiteRT computes in one pass.
        folded: whether norms are folded.
        units: whether feature maps may be in other units than their norm's, by a number a channel.
        image_size: (height, width) of the images, None where the network's own holds.
        raw: the dtype of pixels from 0 to 255, if it takes these; the network's `pixels` say how they are normalised.
        probabilities: whether a softmax follows the head.
    """

    data_format: str = "channels_last"
    multiply_add: str = "norm"
    folded: bool = True
    units: bool = True
    image_size: tuple[int | None, int | None] | None = None
    raw: str | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class Maps:
    """Feature maps `scale * tensor + shift`, of two numbers a channel that are still to be applied."""

    tensor: Any
    scale: np.ndarray
    shift: np.ndarray

    def in_units_of(self, unit: np.ndarray) -> "Maps":
        return Maps(self.tensor, self.scale / unit, self.shift / unit)

    def channels(self, start: int, stop: int, tensor: Any) -> "Maps":
        return Maps(tensor, self.scale[start:stop], self.shift[start:stop])


class UnknownLayerError(ValueError):
    """A network has a layer that this library cannot write out, such as a mixer of the user's own."""


def lower(model: keras.Model, form: Form = Form()) -> keras.Model:  # noqa: B008, a frozen dataclass
    """Writes a network of this library out in plain Keras layers, as `form` says."""
    if not isinstance(model, Network):
        raise ValueError(
            f"fold takes a network of keras_mixers, got {getattr(model, 'name', model)!r} of {type(model).__name__}."
        )
    modes = {layer.quantization_mode for layer in model._flatten_layers(include_self=False)} - {None}
    if modes:
        raise ValueError(
            f"fold takes a network before it is quantised, got {model.name!r} in {' and '.join(modes)}; export_model "
            "quantises by itself."
        )
    if any(getattr(layer, "normalization", None) == "layer" for layer in model.layers):
        form = replace(form, data_format="channels_last")  # Keras on PyTorch norms the last axis only
    with in_float32():
        return _Lowering(form).network(model)


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Makes layers that compute in float32, whatever the global dtype policy."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


class _Lowering:
    """One network on its way: each method writes out a layer of it, and takes and gives `Maps`."""

    def __init__(self, form: Form) -> None:
        self.form = form
        # Of feature maps, and of their mean, which has the channels last in either layout.
        self.axis = -1 if form.data_format == "channels_last" else 1

    def network(self, model: Network) -> keras.Model:
        channels_first = model.takes_channels_first
        given = "channels_first" if channels_first else "channels_last"
        shape = list(model.input_shape[1:])
        if self.form.image_size is not None:
            shape[slice(1, 3) if channels_first else slice(0, 2)] = self.form.image_size
        image = keras.Input(shape, dtype=self.form.raw or "float32", name="image")
        x = self.permute(image, given, self.form.data_format, "to_layout")
        x = ops.cast(x, "float32") if self.form.raw == "uint8" else x
        maps = self.maps(x)
        if self.form.raw and not any(isinstance(layer, NormalizePixels) for layer in model.layers):
            maps = self.normalize_pixels(model.pixels, maps)
        for layer in model.layers[1:]:
            maps = self.write_out(layer, maps)
        output = self.apply(maps, "output_norm")
        if len(output.shape) == 4:
            output = self.permute(output, self.form.data_format, given, "from_layout")
        if self.form.probabilities and not gives_probabilities(model):
            output = keras.layers.Softmax(name="probabilities")(output)
        return keras.Model(image, output, name=model.name)

    def write_out(self, layer: keras.layers.Layer, maps: Maps) -> Maps:
        for kinds, write in (
            (NormalizePixels, self.normalize_pixels),
            (PatchEmbed, self.patch_embed),
            (SpatialMixer1D | SpatialMixer2D, self.spatial_mixer),
            (ChannelMixer | ChannelSplitMixer | ChannelStrideMixer, self.channel_mixer),
            (keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D, self.pool),
            (keras.layers.Dense, self.head),
            (keras.layers.Dropout | keras.layers.Permute, lambda _, maps: maps),  # the layout is that of `form`
        ):
            if isinstance(layer, kinds):
                return write(layer, maps)
        raise UnknownLayerError(f"fold knows the layers of keras_mixers, not {layer.name!r} of {type(layer).__name__}.")

    # What stands in the papers.

    def normalize_pixels(self, pixels: Any, maps: Maps) -> Maps:
        mean, std = np.asarray(pixels.mean, "float64"), np.asarray(pixels.std, "float64")
        return Maps(maps.tensor, maps.scale / (255 * std), (maps.shift / 255 - mean) / std)

    def patch_embed(self, layer: PatchEmbed, maps: Maps) -> Maps:
        if layer.padding == "same" and layer.patch_size > 1:
            maps = self.without_shift(maps, f"{layer.name}_pixels")
        kernel, bias = _kernel_and_bias(layer.convolution)
        convolution = keras.layers.Conv2D(
            layer.dim, layer.patch_size, layer.stride, layer.padding, self.form.data_format, name=layer.name
        )
        bias = bias + np.einsum("ijco,c->o", kernel, maps.shift)
        y = self.call(convolution, maps.tensor, kernel * maps.scale[:, None], bias)
        return self.finish(y, layer, layer.norm, layer.name)

    def spatial_mixer(self, layer: SpatialMixer1D | SpatialMixer2D, maps: Maps) -> Maps:
        if isinstance(layer, SpatialMixer1D):
            steps = [("width", layer.width_convolution, layer.width_norm)]
            steps += [("height", layer.height_convolution, layer.height_norm)]
        else:
            steps = [("depthwise", layer.convolution, layer.norm)]
        maps, close = self.residual(layer, steps[-1][2], maps)
        for part, convolution, norm in steps:
            name = f"{layer.name}_{part}"
            maps = self.without_shift(maps, f"{name}_norm_before")
            kernel, bias = _kernel_and_bias(convolution)
            y = self.depthwise(maps.tensor, kernel * maps.scale[:, None], bias, name)
            maps = self.finish(y, layer, norm, name)
        return close(maps)

    def channel_mixer(self, layer: keras.layers.Layer, maps: Maps) -> Maps:
        maps, close = self.residual(layer, layer.norm, maps)
        if isinstance(layer, ChannelMixer):
            y = self.pointwise(layer.pointwise, maps, layer.name)
        elif isinstance(layer, ChannelSplitMixer):
            y = self.split_mixer(layer, maps)
        else:
            y = self.stride_mixer(layer, maps)
        return close(self.finish(y, layer, layer.norm, layer.name))

    def split_mixer(self, layer: ChannelSplitMixer, maps: Maps) -> Any:
        if layer.shared:
            maps = self.maps(self.apply(maps, f"{layer.name}_norm_before"))  # one kernel serves all segments
        convolutions = layer.pointwise * len(layer.mixed_spans) if layer.shared else layer.pointwise
        mixed = list(zip(layer.mixed_spans, convolutions, strict=True))
        groups = [mixed] if layer.ratio is None else [[one] for one in mixed]
        for i, group in enumerate(map(dict, groups)):
            bounds = sorted({0, len(maps.scale), *chain(*group)})
            parts = []
            for (start, stop), tensor in zip(pairwise(bounds), self.split(maps.tensor, bounds[1:-1]), strict=True):
                part, name = maps.channels(start, stop, tensor), f"{layer.name}_{start}_{stop}"
                if (start, stop) in group:
                    part = self.maps(self.pointwise(group[start, stop], part, name))
                elif i == len(groups) - 1 or not self.form.units:
                    # Integers need an operation of their own here: LiteRT's converter gives both ends of a split and of
                    # a join one range, and what comes before would be cut off at the range of what comes after.
                    part = self.maps(self.apply(part, f"{name}_{i}_norm_before", always=not self.form.units))
                parts.append(part)
            maps = Maps(
                self.join([part.tensor for part in parts]),
                np.concatenate([part.scale for part in parts]),
                np.concatenate([part.shift for part in parts]),
            )
        return self.channel_shuffle(maps.tensor, layer.segments) if layer.shuffle else maps.tensor

    def stride_mixer(self, layer: ChannelStrideMixer, maps: Maps) -> Any:
        x = self.apply(maps, f"{layer.name}_norm_before")
        starts = [j * layer.stride for j in range(layer.positions)]
        windows = [self.split(x, [start, start + layer.kernel_size])[1 if start else 0] for start in starts]
        convolved = [
            self.pointwise(layer.pointwise, self.maps(window), f"{layer.name}_{j}") for j, window in enumerate(windows)
        ]
        return self.channel_shuffle(self.join(convolved), layer.positions)

    def pool(self, layer: keras.layers.Layer, maps: Maps) -> Maps:
        if isinstance(layer, keras.layers.GlobalMaxPooling2D):
            maps = self.maps(self.apply(maps, f"{layer.name}_norm_before"))
        return replace(maps, tensor=type(layer)(data_format=self.form.data_format, name=layer.name)(maps.tensor))

    def head(self, layer: keras.layers.Dense, maps: Maps) -> Maps:
        kernel, bias = _kernel_and_bias(layer)
        dense = keras.layers.Dense(layer.units, layer.activation, name=layer.name)
        return self.maps(self.call(dense, maps.tensor, kernel * maps.scale[:, None], bias + maps.shift @ kernel))

    # What a norm and a residual become.

    def finish(self, y: Any, layer: keras.layers.Layer, norm: keras.layers.Layer | None, name: str) -> Maps:
        """Writes the activation out, and gives the norm after it to whatever follows."""
        if layer.activation is not keras.activations.linear:
            y = keras.layers.Activation(layer.activation, name=f"{name}_activation")(y)
        if layer.normalization == "layer":
            centred = keras.layers.LayerNormalization(
                epsilon=norm.epsilon, center=False, scale=False, name=f"{name}_layer_norm"
            )
            y = centred(y)
        maps = Maps(y, *_scale_and_shift(norm, y.shape[self.axis]))
        return maps if self.form.folded else self.maps(self.apply(maps, f"{name}_norm"))

    def residual(self, layer: keras.layers.Layer, norm: keras.layers.Layer | None, z: Maps) -> tuple[Maps, Any]:
        """Returns what a branch with this norm at its end takes, and what adds z to that which it gives."""
        if not layer.residual:
            return z, lambda branch: branch
        unit, _ = _scale_and_shift(norm, len(z.scale))
        in_units = self.form.folded and self.form.units and _is_divisor(unit)
        unit = unit if in_units else np.ones_like(unit)
        u = self.apply(z.in_units_of(unit), f"{layer.name}_residual_norm")

        def close(branch: Maps) -> Maps:
            x = branch.tensor if in_units else self.apply(branch, f"{layer.name}_branch_norm")
            y = keras.layers.Add(name=f"{layer.name}_residual")([x, u])
            return Maps(y, unit, branch.shift) if in_units else self.maps(y)

        return Maps(u, unit, np.zeros_like(unit)), close

    def apply(self, maps: Maps, name: str, always: bool = False) -> Any:
        """Returns `scale * tensor + shift`, by an operation even where nothing is left to be done if `always`."""
        if np.all(maps.scale == 1) and np.all(maps.shift == 0) and not always:
            return maps.tensor
        if self.form.multiply_add == "depthwise" and len(maps.tensor.shape) == 4:
            return self.depthwise(maps.tensor, maps.scale[None, None, :, None], maps.shift, name)
        norm = keras.layers.BatchNormalization(self.axis, name=name)
        ones = np.ones_like(maps.scale)
        return self.call(norm, maps.tensor, maps.scale, maps.shift, 0 * ones, ones - norm.epsilon)

    def without_shift(self, maps: Maps, name: str) -> Maps:
        """Returns the same maps in a form that a convolution with zeros around the image takes."""
        if not maps.shift.any():
            return maps
        if not (self.form.folded and self.form.units and _is_divisor(maps.scale)):
            return self.maps(self.apply(maps, name))
        shift = np.asarray(maps.shift / maps.scale, "float32").reshape((-1,) if self.axis == -1 else (-1, 1, 1))
        return Maps(ops.add(maps.tensor, shift), maps.scale, np.zeros_like(maps.shift))

    def maps(self, x: Any) -> Maps:
        """Returns a tensor as feature maps with nothing left to be done."""
        channels = x.shape[self.axis]
        return Maps(x, np.ones(channels), np.zeros(channels))

    # Keras's layers.

    def call(self, layer: keras.layers.Layer, x: Any, *weights: np.ndarray) -> Any:
        y = layer(x)
        layer.set_weights([np.asarray(weight, "float32") for weight in weights])
        return y

    def pointwise(self, layer: keras.layers.Layer, maps: Maps, name: str) -> Any:
        kernel, bias = _kernel_and_bias(layer)
        convolution = keras.layers.Conv2D(kernel.shape[1], 1, data_format=self.form.data_format, name=name)
        scaled = kernel * maps.scale[:, None]
        return self.call(convolution, maps.tensor, scaled[None, None], bias + maps.shift @ kernel)

    def depthwise(self, x: Any, kernel: np.ndarray, bias: np.ndarray, name: str) -> Any:
        convolution = keras.layers.DepthwiseConv2D(
            kernel.shape[:2], padding="same", data_format=self.form.data_format, name=name
        )
        return self.call(convolution, x, kernel, bias)

    def split(self, x: Any, positions: list[int]) -> list[Any]:
        inner = [position for position in positions if 0 < position < x.shape[self.axis]]
        if self.axis == 1:  # torch.export cannot follow Keras's split
            return [x[:, start:stop] for start, stop in pairwise([0, *inner, x.shape[1]])] if inner else [x]
        return list(ops.split(x, inner, axis=self.axis)) if inner else [x]

    def join(self, parts: list[Any]) -> Any:
        return ops.concatenate(parts, axis=self.axis) if len(parts) > 1 else parts[0]

    def channel_shuffle(self, x: Any, groups: int) -> Any:
        order = np.arange(x.shape[self.axis]).reshape(groups, -1).T.ravel()
        return ops.take(x, order.tolist(), axis=self.axis)

    def permute(self, x: Any, given: str, wanted: str, name: str) -> Any:
        if given == wanted:
            return x
        return keras.layers.Permute((2, 3, 1) if wanted == "channels_last" else (3, 1, 2), name=name)(x)


def _is_divisor(scale: np.ndarray) -> bool:
    return bool(np.abs(scale).min() >= SMALLEST_SCALE * np.abs(scale).max())


def _kernel_and_bias(layer: keras.layers.Layer) -> list[np.ndarray]:
    return [ops.convert_to_numpy(weight).astype("float64") for weight in (layer.kernel, layer.bias)]


def _scale_and_shift(norm: keras.layers.Layer | None, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two numbers a channel that a norm ends with: for a batch norm, all that it does in inference."""
    if norm is None:
        return np.ones(channels), np.zeros(channels)
    gamma, beta, *statistics = (ops.convert_to_numpy(weight).astype("float64") for weight in norm.weights)
    if not statistics:
        return gamma, beta
    mean, variance = statistics
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def gives_probabilities(model: keras.Model) -> bool:
    """Whether a network's head ends with a softmax."""
    return model.layers[-1].get_config().get("activation") == "softmax"
