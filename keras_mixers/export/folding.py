"""A network for inference: plain Keras layers, its norms folded into their neighbours as far as that is exact.

In inference a batch norm is `scale * x + shift`, with a scale and a shift per channel. In ConvMixer and SplitMixer it
stands behind the activation, so that it cannot go into the convolution before it. What can be done exactly:

- The last norm goes into the head: a mean and a product of matrices are linear.
- A pointwise convolution takes a scale and a shift: they change its kernel and its bias.
- A depthwise convolution takes a scale, but no shift: the zeros around the image are not shifted. Of the norm before
  it, a sum with `shift / scale` is left.
- A residual sum `(a * x + b) + z` is computed in units of a: it is `a * (x + u) + b` with `u = z / a`. The norm before
  z is computed in these units, and what follows the sum takes a and b. So the norm at the end of a residual branch
  costs nothing.

What remains is that sum, a multiply-add before each block, whose input goes into a depthwise convolution and into a
residual, and one for the channels that a split mixer leaves unmixed, since an activation comes next.

In MLP-Mixer, ResMLP and gMLP the norm comes first, and the residual sum is not normalised:

- The scale and shift at the end of a layer norm, or those that are all of an affine one, go into a product over the
  channels. Before a product over the positions they are applied: a shift per channel is none per position.
- LayerScale goes into the product over the channels before it.
- The final norm goes into the head, but for the statistics of a layer norm.

Their feature maps are written as (batch, positions, 1, channels), so that a product over the positions is one over the
last axis between two transpositions.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers.layers import NormalizePixels
from keras_mixers.layers.normalization import Affine, BatchNormalization, ChannelNormalization
from keras_mixers.layers.pre_norm_mixer import TokenDense
from keras_mixers.layers.validation import UnknownLayerError
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
        depthwise_taps: the most taps that a depthwise kernel may have. A larger one is cut into blocks, whose
            results are added. None for any size.
        dense: whether products over positions and channels of one network are `Dense` layers, not 1 × 1 convolutions.
        folded: whether norms are folded.
        units: whether feature maps may be in other units than their norm's, by a factor per channel.
        image_size: (height, width) of the images, None where the network's own holds.
        raw: the dtype of pixels from 0 to 255, if it takes these; the network's `pixels` say how they are normalised.
        probabilities: whether a softmax follows the head.
    """

    data_format: str = "channels_last"
    multiply_add: str = "norm"
    depthwise_taps: int | None = None
    dense: bool = True
    folded: bool = True
    units: bool = True
    image_size: tuple[int | None, int | None] | None = None
    raw: str | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class Maps:
    """Feature maps `scale * tensor + shift`, whose scale and shift per channel are still to be applied.

    Attributes:
        pieces: the tensors that `tensor` was joined from, if it was.
    """

    tensor: Any
    scale: np.ndarray
    shift: np.ndarray
    pieces: tuple[Any, ...] = ()

    def in_units_of(self, unit: np.ndarray) -> "Maps":
        return replace(self, scale=self.scale / unit, shift=self.shift / unit)

    def holding(self, tensor: Any) -> "Maps":
        return Maps(tensor, self.scale, self.shift)

    def channels(self, start: int, stop: int, tensor: Any) -> "Maps":
        return Maps(tensor, self.scale[start:stop], self.shift[start:stop])


def lower(model: keras.Model, form: Form = Form()) -> keras.Model:  # noqa: B008, a frozen dataclass
    """Writes a network of this library out in plain Keras layers, as `form` says."""
    if not isinstance(model, Network):
        raise ValueError(
            f"fold takes a network of keras_mixers, got {getattr(model, 'name', model)!r} of {type(model).__name__}."
        )
    layers = list(model._flatten_layers(include_self=False))
    modes = {layer.quantization_mode for layer in layers} - {None}
    if modes:
        raise ValueError(
            f"fold takes a network before it is quantised, got {model.name!r} in {' and '.join(modes)}; export_model "
            "quantises by itself."
        )
    mixes_positions = any(isinstance(layer, TokenDense) for layer in layers)
    form = replace(form, dense=form.dense and mixes_positions)
    if mixes_positions or any(isinstance(layer, keras.layers.LayerNormalization) for layer in layers):
        form = replace(form, data_format="channels_last")  # Keras on PyTorch norms the last axis only
    with in_float32():
        return Writer(form).network(model)


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Makes layers that compute in float32, whatever the global dtype policy."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


class Writer:
    """Writes one network out: what `write_out` of a layer calls. Its methods take and give `Maps`."""

    def __init__(self, form: Form) -> None:
        self.form = form
        # Of feature maps, and of their mean, which has the channels last in either layout.
        self.axis = -1 if form.data_format == "channels_last" else 1
        self.size: tuple[int, int] | None = None  # of what are `tokens` now

    def network(self, model: Network) -> keras.Model:
        shape = list(model.input_shape[1:])
        if self.form.image_size is not None:
            shape[slice(1, 3) if model.takes_channels_first else slice(0, 2)] = self.form.image_size
        image = keras.Input(shape, dtype=self.form.raw or "float32", name="image")
        x = self._permute(image, model.data_format, self.form.data_format, "to_layout")
        x = ops.cast(x, "float32") if self.form.raw == "uint8" else x
        maps = self.maps(x)
        if self.form.raw and not any(isinstance(layer, NormalizePixels) for layer in model.layers):
            maps = self._normalize_pixels(model.pixels, maps)
        for layer in model.layers[1:]:
            maps = self._write_out(layer, maps)
        if len(model.output_shape) == 4:
            maps = self.grid(maps)
        output = self.apply(maps, "output_norm").tensor
        if len(output.shape) == 4:
            output = self._permute(output, self.form.data_format, model.data_format, "from_layout")
        if self.form.probabilities and not gives_probabilities(model):
            output = keras.layers.Softmax(name="probabilities")(output)
        return keras.Model(image, output, name=model.name)

    # What layers are made of.

    def convolve(self, convolution: keras.layers.Layer, maps: Maps, name: str, scale: Any = None) -> Maps:
        """Writes out a product over the last axis, or a `Conv2D` or `DepthwiseConv2D` of Keras.

        A scale of each output channel, such as a LayerScale, goes into the kernel and the bias.
        """
        if not self.form.folded:
            return self.scale(self._convolve(convolution, maps, name), scale)
        return self._convolve(convolution, maps, name, scale)

    def convolve_in_parts(self, product: keras.layers.Layer, maps: Maps, name: str, positions: list[int]) -> list[Maps]:
        """Writes out a product whose outputs are cut at these positions: a product for each part."""
        bounds = [0, *positions, product.units]
        return [
            self._convolve(product, maps, f"{name}_{i}", outputs=slice(*span))
            for i, span in enumerate(pairwise(bounds))
        ]

    def _convolve(
        self, convolution: keras.layers.Layer, maps: Maps, name: str, scale: Any = None, outputs: slice = slice(None)
    ) -> Maps:
        kernel, bias = _kernel_and_bias(convolution)
        if scale is not None:
            factor = ops.convert_to_numpy(scale).astype("float64")
            kernel, bias = kernel * factor, bias * factor
        if kernel.ndim == 2:
            kernel, bias = kernel[:, outputs], bias[outputs] if np.ndim(bias) else bias
        if kernel.ndim == 2 and self.form.dense:
            dense = keras.layers.Dense(kernel.shape[1], name=name)
            return self.maps(self._call(dense, maps.tensor, kernel * maps.scale[:, None], bias + maps.shift @ kernel))
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        options = {
            "strides": getattr(convolution, "strides", 1),
            "padding": getattr(convolution, "padding", "valid"),
            "data_format": self.form.data_format,
            "dilation_rate": getattr(convolution, "dilation_rate", 1),
        }
        if options["padding"] == "same" and kernel.shape[:2] != (1, 1):
            maps = self.without_shift(maps, f"{name}_norm_before")
        if isinstance(convolution, keras.layers.DepthwiseConv2D):
            shift = bias + np.einsum("ijco,c->co", kernel, maps.shift).ravel()
            return self.maps(self._depthwise(maps.tensor, kernel * maps.scale[:, None], shift, name, options))
        plain = keras.layers.Conv2D(kernel.shape[3], kernel.shape[:2], name=name, **options)
        shift = bias + np.einsum("ijco,c->o", kernel, maps.shift)
        return self.maps(self._call(plain, maps.tensor, kernel * maps.scale[:, None], shift))

    def _depthwise(self, x: Any, kernel: np.ndarray, bias: np.ndarray, name: str, options: dict[str, Any]) -> Any:
        """Writes out a depthwise convolution, in blocks if its kernel has more taps than `form` allows.

        A block of the kernel sees the image moved: padded on one side by what it is cropped on the other. The results
        are added, the bias is in the first.
        """
        size = kernel.shape[:2]
        blocks = kernel_blocks(size, self.form.depthwise_taps)
        if len(blocks) == 1 or any(np.ravel([options["strides"], options["dilation_rate"]]) != 1):
            return self._call(keras.layers.DepthwiseConv2D(size, name=name, **options), x, kernel, bias)
        data_format, results = self.form.data_format, []
        for spans in blocks:
            border = [
                ((length - 1) // 2 - start, length // 2 - (length - stop)) if options["padding"] == "same"
                else (-start, stop - length)
                for length, (start, stop) in zip(size, spans, strict=True)
            ]  # fmt: skip
            block_name = "_".join(map(str, (name, *chain(*spans))))
            y = x
            for resize, sign, ending in (
                (keras.layers.Cropping2D, -1, "crop"), (keras.layers.ZeroPadding2D, 1, "pad")
            ):  # fmt: skip
                amounts = tuple(tuple(max(0, sign * amount) for amount in side) for side in border)
                if any(chain(*amounts)):
                    y = resize(amounts, data_format, name=f"{block_name}_{ending}")(y)
            block = kernel[tuple(slice(*span) for span in spans)]
            plain = keras.layers.DepthwiseConv2D(block.shape[:2], data_format=data_format, name=block_name)
            results.append(self._call(plain, y, block, np.zeros_like(bias) if results else bias))
        total = results[0]
        for i, result in enumerate(results[1:]):
            total = keras.layers.Add(name=f"{name}_sum_{i}" if i < len(results) - 2 else name)([total, result])
        return total

    def finish(self, layer: keras.layers.Layer, norm: keras.layers.Layer | None, maps: Maps, name: str) -> Maps:
        """Writes out the activation of a layer, and leaves the norm after it to whatever follows."""
        return self.norm(norm, self.activate(layer.activation, maps, name), f"{name}_norm")

    def activate(self, activation: Callable, maps: Maps, name: str) -> Maps:
        """Writes out an activation."""
        maps = self.apply(maps, f"{name}_norm_before")
        if activation is keras.activations.linear:
            return maps
        if self._is_in_pieces(maps):
            return self._by_piece(maps, lambda part, i: self.activate(activation, part, f"{name}_{i}"))
        return self.maps(keras.layers.Activation(activation, name=f"{name}_activation")(maps.tensor))

    def norm(self, norm: keras.layers.Layer | None, maps: Maps, name: str, apply: bool = False) -> Maps:
        """Writes out a norm, and leaves its scale and shift to whatever follows unless these are to be applied here."""
        if norm is None:
            return self.apply(maps, name) if apply else maps
        apply = apply or not self.form.folded
        scale, shift = _scale_and_shift(norm, len(maps.scale))
        if isinstance(norm, keras.layers.LayerNormalization):
            x, in_one = self.apply(maps, f"{name}_before").tensor, apply and self.form.multiply_add == "norm"
            layer = keras.layers.LayerNormalization(
                epsilon=norm.epsilon, center=in_one, scale=in_one, name=name if in_one else f"{name}_statistics"
            )
            maps = self.maps(self._call(layer, x, *((scale, shift) if in_one else ())))
            if in_one:
                return maps
        maps = replace(maps, scale=maps.scale * scale, shift=maps.shift * scale + shift)
        return self.apply(maps, name) if apply else maps

    def scale(self, maps: Maps, scale: Any) -> Maps:
        """Returns feature maps times a scale of each channel, which is left to whatever follows; None for no scale."""
        factor = 1.0 if scale is None else ops.convert_to_numpy(scale).astype("float64")
        return replace(maps, scale=maps.scale * factor, shift=maps.shift * factor)

    def multiply(self, maps: Maps, others: Maps, name: str) -> Maps:
        """Writes out the product of two feature maps, element by element."""
        factors = [self.apply(each, f"{name}_factor_{i}").tensor for i, each in enumerate((maps, others))]
        return self.maps(keras.layers.Multiply(name=f"{name}_product")(factors))

    def tokens(self, maps: Maps) -> Maps:
        """Returns feature maps of a known size, channels last, as (batch, positions, 1, channels)."""
        _, height, width, channels = maps.tensor.shape
        if self.size is None:
            self.size = height, width
            maps = maps.holding(ops.reshape(maps.tensor, (-1, height * width, 1, channels)))
        return maps

    def grid(self, maps: Maps) -> Maps:
        """Returns what `tokens` has made as feature maps again."""
        if self.size is not None:
            maps = maps.holding(ops.reshape(maps.tensor, (-1, *self.size, maps.tensor.shape[-1])))
            self.size = None
        return maps

    def transpose(self, maps: Maps, name: str) -> Maps:
        """Writes out T: swaps positions and channels of `tokens`."""
        maps = self.apply(maps, f"{name}_norm_before")
        return self.maps(keras.layers.Permute((3, 2, 1), name=name)(maps.tensor))

    def residual(
        self, layer: keras.layers.Layer, norm: keras.layers.Layer | None, z: Maps
    ) -> tuple[Maps, Callable[[Maps], Maps]]:
        """Returns what a branch with this norm at its end takes, and what adds z to that which it gives."""
        if not layer.residual:
            return z, lambda branch: branch
        unit, _ = _scale_and_shift(norm, len(z.scale))
        in_units = self.form.folded and self.form.units and _is_divisor(unit)
        unit = unit if in_units else np.ones_like(unit)
        u = self.apply(z.in_units_of(unit), f"{layer.name}_residual_norm").tensor

        def close(branch: Maps) -> Maps:
            x = branch.tensor if in_units else self.apply(branch, f"{layer.name}_branch_norm").tensor
            y = keras.layers.Add(name=f"{layer.name}_residual")([x, u])
            return Maps(y, unit, branch.shift) if in_units else self.maps(y)

        return Maps(u, unit, np.zeros_like(unit)), close

    def apply(self, maps: Maps, name: str, always: bool = False) -> Maps:
        """Applies scale and shift, by an operation even where nothing is left to be done if `always`."""
        if np.all(maps.scale == 1) and np.all(maps.shift == 0) and not always:
            return maps
        if self._is_in_pieces(maps):
            return self._by_piece(maps, lambda part, i: self.apply(part, f"{name}_{i}", always))
        if self.form.multiply_add == "depthwise" and len(maps.tensor.shape) == 4:
            convolution = keras.layers.DepthwiseConv2D(1, data_format=self.form.data_format, name=name)
            return self.maps(self._call(convolution, maps.tensor, maps.scale[None, None, :, None], maps.shift))
        norm = keras.layers.BatchNormalization(self.axis, name=name)
        ones = np.ones_like(maps.scale)
        return self.maps(self._call(norm, maps.tensor, maps.scale, maps.shift, 0 * ones, ones - norm.epsilon))

    def apply_scale(self, maps: Maps, name: str) -> Maps:
        """Applies a scale other than 1, and leaves a shift alone to whatever follows."""
        return maps if np.all(maps.scale == 1) else self.apply(maps, name)

    def without_shift(self, maps: Maps, name: str) -> Maps:
        """Returns the same maps in a form that a convolution with zeros around the image takes."""
        if not maps.shift.any():
            return maps
        if not (self.form.folded and self.form.units and _is_divisor(maps.scale)):
            return self.apply(maps, name)
        shift = np.asarray(maps.shift / maps.scale, "float32").reshape((-1,) if self.axis == -1 else (-1, 1, 1))
        return Maps(ops.add(maps.tensor, shift), maps.scale, np.zeros_like(maps.shift))

    def maps(self, x: Any) -> Maps:
        """Returns a tensor as feature maps with nothing left to be done."""
        channels = x.shape[self.axis]
        return Maps(x, np.ones(channels), np.zeros(channels))

    def _is_in_pieces(self, maps: Maps) -> bool:
        """Whether the activation and the norm of joined channels are written before the join, piece by piece.

        Integers have one range per tensor: channels that were convolved reach ten times as far as those that were
        passed by, until a norm brings both to one scale.
        """
        return bool(maps.pieces) and not self.form.units

    def _by_piece(self, maps: Maps, write: Callable[[Maps, int], Maps]) -> Maps:
        stops = np.cumsum([piece.shape[self.axis] for piece in maps.pieces])
        parts = [
            maps.channels(stop - piece.shape[self.axis], stop, piece)
            for piece, stop in zip(maps.pieces, stops, strict=True)
        ]
        return self.join([write(part, i) for i, part in enumerate(parts)])

    def split(self, maps: Maps, positions: list[int]) -> list[Maps]:
        """Cuts the channels at those positions that are inside."""
        channels = len(maps.scale)
        bounds = [0, *(position for position in positions if 0 < position < channels), channels]
        if len(bounds) == 2:
            return [maps]
        if self.axis == 1:  # torch.export cannot follow Keras's split
            parts = [maps.tensor[:, start:stop] for start, stop in pairwise(bounds)]
        else:
            parts = ops.split(maps.tensor, bounds[1:-1], axis=self.axis)
        return [maps.channels(*span, part) for span, part in zip(pairwise(bounds), parts, strict=True)]

    def join(self, parts: list[Maps]) -> Maps:
        """Puts channels that were split together again."""
        if len(parts) == 1:
            return parts[0]
        tensor = ops.concatenate([part.tensor for part in parts], axis=self.axis)
        scale, shift = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scale", "shift"))
        return Maps(tensor, scale, shift, tuple(part.tensor for part in parts))

    def pass_by(self, part: Maps, name: str, last: bool) -> Maps:
        """Writes out channels beside those that are convolved, before both are joined; `last` if an activation follows.

        Integers need an operation of their own here, unless the activation is one: LiteRT's converter gives both ends
        of a split and of a join one range, and what comes before would be cut off at the range of what comes after.
        """
        return self.apply(part, name, always=not last) if last or not self.form.units else part

    def channel_shuffle(self, maps: Maps, groups: int) -> Maps:
        """Moves channel c of group g to place c * groups + g."""
        order = np.arange(len(maps.scale)).reshape(groups, -1).T.ravel()
        return Maps(ops.take(maps.tensor, order.tolist(), axis=self.axis), maps.scale[order], maps.shift[order])

    # Layers that are not mixers.

    def _write_out(self, layer: keras.layers.Layer, maps: Maps) -> Maps:
        if hasattr(layer, "write_out"):
            return layer.write_out(self, maps)
        for kinds, write in (
            (NormalizePixels, self._normalize_pixels),
            (keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D, self._pool),
            (keras.layers.Dense, self._head),
            (Affine | BatchNormalization | ChannelNormalization, lambda norm, maps: self.norm(norm, maps, norm.name)),
            (keras.layers.Dropout | keras.layers.Permute, lambda _, maps: maps),  # the layout is that of `form`
        ):
            if isinstance(layer, kinds):
                return write(layer, maps)
        raise UnknownLayerError(
            f"fold knows the layers of keras_mixers, not {layer.name!r} of {type(layer).__name__}; give the class a "
            "method write_out(writer, maps)."
        )

    def _normalize_pixels(self, pixels: Any, maps: Maps) -> Maps:
        mean, std = np.asarray(pixels.mean, "float64"), np.asarray(pixels.std, "float64")
        return Maps(maps.tensor, maps.scale / (255 * std), (maps.shift / 255 - mean) / std)

    def _pool(self, layer: keras.layers.Layer, maps: Maps) -> Maps:
        if isinstance(layer, keras.layers.GlobalMaxPooling2D):
            maps = self.apply(maps, f"{layer.name}_norm_before")
        elif not self.form.units:
            maps = self._mean_before_norm(maps, layer.name)
            return maps.holding(ops.squeeze(maps.tensor, (1, 2) if self.axis == -1 else (2, 3)))
        return maps.holding(type(layer)(data_format=self.form.data_format, name=layer.name)(maps.tensor))

    def _mean_before_norm(self, maps: Maps, name: str) -> Maps:
        """Writes out the mean over the positions, and then the norm: before it, a few channels reach a hundred times as
        far as their means, and integers have one range for all.
        """
        if self._is_in_pieces(maps):
            return self._by_piece(maps, lambda part, i: self._mean_before_norm(part, f"{name}_{i}"))
        mean = keras.layers.GlobalAveragePooling2D(self.form.data_format, keepdims=True, name=name)(maps.tensor)
        return self.apply(maps.holding(mean), f"{name}_norm")

    def _head(self, layer: keras.layers.Dense, maps: Maps) -> Maps:
        kernel, bias = _kernel_and_bias(layer)
        dense = keras.layers.Dense(layer.units, layer.activation, name=layer.name)
        return self.maps(self._call(dense, maps.tensor, kernel * maps.scale[:, None], bias + maps.shift @ kernel))

    def _call(self, layer: keras.layers.Layer, x: Any, *weights: np.ndarray) -> Any:
        y = layer(x)
        layer.set_weights([np.asarray(weight, "float32") for weight in weights])
        return y

    def _permute(self, x: Any, given: str, wanted: str, name: str) -> Any:
        if given == wanted:
            return x
        return keras.layers.Permute((2, 3, 1) if wanted == "channels_last" else (3, 1, 2), name=name)(x)


Span = tuple[int, int]


def kernel_blocks(size: tuple[int, int], taps: int | None) -> list[tuple[Span, Span]]:
    """Cuts a kernel into the fewest blocks of at most so many taps, each a span of rows and one of columns.

    Where blocks of whole rows are as few as others, they are preferred.

    Args:
        size: height and width of the kernel.
        taps: the most taps of a block, None for any number.

    Example:
        >>> kernel_blocks((5, 5), 25)
        [((0, 5), (0, 5))]
        >>> kernel_blocks((7, 7), 25)
        [((0, 3), (0, 7)), ((3, 6), (0, 7)), ((6, 7), (0, 7))]
        >>> kernel_blocks((9, 9), 25)
        [((0, 5), (0, 5)), ((0, 5), (5, 9)), ((5, 9), (0, 5)), ((5, 9), (5, 9))]
    """
    height, width = size
    if taps is None or height * width <= taps:
        return [((0, height), (0, width))]

    def cut(columns: int) -> list[tuple[Span, Span]]:
        across = min(width, -(-width // columns))
        down = max(1, min(height, taps // across))
        return [
            ((top, min(top + down, height)), (left, min(left + across, width)))
            for top in range(0, height, down)
            for left in range(0, width, across)
        ]

    return min((cut(columns) for columns in range(1, width + 1) if -(-width // columns) <= taps), key=len)


def _is_divisor(scale: np.ndarray) -> bool:
    return bool(np.abs(scale).min() >= SMALLEST_SCALE * np.abs(scale).max())


def _kernel_and_bias(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray | float]:
    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    return kernel, 0.0 if layer.bias is None else ops.convert_to_numpy(layer.bias).astype("float64")


def _scale_and_shift(norm: keras.layers.Layer | None, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and the shift per channel that a norm ends with: all that a batch norm does in inference."""
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
