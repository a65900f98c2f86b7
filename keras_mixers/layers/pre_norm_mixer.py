"""What MLP-Mixer, ResMLP and gMLP have in common: a norm first, then a branch, and a residual around both."""

import math
from typing import Any

import keras
from keras import ops

from keras_mixers import backends
from keras_mixers.layers.channel_mixers import PointwiseConvolution
from keras_mixers.layers.mixing_layer import MixingLayer, convolution_initializers
from keras_mixers.layers.validation import ImageError, check_keras, check_positive, check_positive_int


@keras.saving.register_keras_serializable(package="keras_mixers")
class TokenDense(keras.layers.Dense):
    """A product over the positions of each channel, with a kernel (input positions, output positions).

    Input (batch, positions, channels), output (batch, units, channels).
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _, positions, self.channels = input_shape
        super().build((None, None, positions))
        self.input_spec = None  # Dense would look for the positions on the last axis

    def call(self, x: Any) -> Any:
        return backends.token_dense(x, self.kernel, self.bias)

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        x, *others = args
        return ops.swapaxes(super().quantized_call(ops.swapaxes(x, 1, 2), *others, **kwargs), 1, 2)

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        check_keras("Quantisation of a mixer", (3, 12))
        super().quantize(mode, type_check=False, config=config)  # Dense leaves its subclasses out

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.units, input_shape[2])


class PreNormMixer(MixingLayer):
    """A mixer `z' = z + s · F(N(z))`: the norm N comes first, and F is what a subclass writes as `branch`.

    Args:
        normalization: N, `"layer"`, `"affine"`, `"batch"` or None.
        layer_scale: what the scale s of each channel starts with, a number above 0; None for no scale.
        residual: whether z is added.
        **kwargs: the arguments of `MixingLayer`.

    Raises:
        ValueError: if an argument is none of these.
    """

    norm_epsilon = 1e-6

    def __init__(
        self,
        *,
        normalization: str | None = "layer",
        layer_scale: float | None = None,
        residual: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(normalization=normalization, residual=residual, **kwargs)
        self.layer_scale = None if layer_scale is None else check_positive("layer_scale", layer_scale)
        self.scale = None
        self.supports_jit = backends.xla_is_fast()  # what model.compile(jit_compile="auto") goes by

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        self.norm = self.make_norm(channels)
        self.build_branch(input_shape, channels)
        if self.layer_scale is not None:
            start = keras.initializers.Constant(self.layer_scale)
            self.scale = self.add_weight(shape=(channels,), initializer=start, name="scale")

    def build_branch(self, input_shape: tuple[int | None, ...], channels: int) -> None:
        """Makes the weights of F."""
        raise NotImplementedError

    def branch(self, x: Any) -> Any:
        """Returns F(x)."""
        raise NotImplementedError

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = self.branch(x if self.norm is None else self.norm(x, training=training))
        scale = self.scale
        if scale is not None and self.channel_axis == 1:
            scale = ops.reshape(scale, (-1, 1, 1))
        if self.residual and not (training and self.drop_path is not None):
            return backends.add_branch(x, y, scale)
        y = y if scale is None else ops.multiply(y, backends.spread(scale, y))
        return ops.add(x, self.drop_path(y, training=True)) if self.residual else y

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_scale": self.layer_scale}

    @property
    def token_products(self) -> list[TokenDense]:
        """Its products over the positions, in order."""
        return [part for part in self.products if isinstance(part, TokenDense)]

    def write_mix(self, writer: Any, maps: Any) -> Any:
        """Writes out `s · F(N(z))`; the residual follows in `write_out`, which has the arguments."""
        return super().write_mix(writer, maps)  # refuses

    def write_out(self, writer: Any, maps: Any) -> Any:
        maps, close = writer.residual(self, None, writer.tokens(maps) if self.token_products else maps)
        return close(writer.apply_scale(self.write_mix(writer, maps), f"{self.name}_scale"))

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        images, positions = output_shape[0], math.prod(output_shape) // output_shape[self.channel_axis]
        uses = {part: images * part.channels if isinstance(part, TokenDense) else positions for part in self.products}
        return sum(count * math.prod(part.kernel.shape) for part, count in uses.items())

    # What branches are made of.

    def dense(self, inputs: int, outputs: int, name: str, **initializers: Any) -> PointwiseConvolution:
        """Makes a product over the channels."""
        options = {**convolution_initializers(self.initializer, inputs), **initializers, "dtype": self.dtype_policy}
        product = PointwiseConvolution(outputs, self.data_format, name=name, **options)
        product.build(inputs)
        return product

    def token_dense(self, inputs: int, outputs: int, channels: int, name: str, **initializers: Any) -> TokenDense:
        """Makes a product over the positions of each of so many channels."""
        options = {**convolution_initializers(self.initializer, inputs), **initializers, "dtype": self.dtype_policy}
        product = TokenDense(outputs, name=name, **options)
        product.build((None, inputs, channels))
        return product

    def positions_of(self, input_shape: tuple[int | None, ...]) -> int:
        """Returns how many positions the feature maps have that the layer is built for, and keeps their grid."""
        self.grid = tuple(input_shape[1:3] if self.channel_axis == -1 else input_shape[2:4])
        if None in self.grid:
            raise ImageError(
                f"{type(self).__name__} mixes a fixed number of patches, so it must know the size of the images, got "
                f"feature maps {tuple(input_shape)}; give the network input_shape, such as (224, 224, 3)."
            )
        return math.prod(self.grid)

    def to_tokens(self, x: Any) -> Any:
        """Returns feature maps as (batch, positions, channels)."""
        height, width = x.shape[1:3] if self.channel_axis == -1 else x.shape[2:4]
        if (height, width) != self.grid and None not in (height, width):
            raise ImageError(
                f"{self.name!r} mixes the patches of a grid of {self.grid[0]} × {self.grid[1]}, got {height} × "
                f"{width}; resize the images, or build the network with their size as input_shape."
            )
        if self.channel_axis == -1:
            return ops.reshape(x, (-1, math.prod(self.grid), x.shape[-1]))
        return ops.swapaxes(ops.reshape(x, (-1, x.shape[1], math.prod(self.grid))), 1, 2)

    def from_tokens(self, x: Any) -> Any:
        """Returns (batch, positions, channels) as feature maps."""
        if self.channel_axis == -1:
            return ops.reshape(x, (-1, *self.grid, x.shape[-1]))
        return ops.reshape(ops.swapaxes(x, 1, 2), (-1, x.shape[-1], *self.grid))


@keras.saving.register_keras_serializable(package="keras_mixers")
class GateInitializer(keras.initializers.Initializer):
    """Starts the first half of the outputs by one initialiser, and the gates, which are the second half, by another."""

    def __init__(self, values: Any, gates: Any) -> None:
        self.values, self.gates = keras.initializers.get(values), keras.initializers.get(gates)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        half = shape[-1] // 2
        return ops.concatenate([part(shape, dtype)[..., :half] for part in (self.values, self.gates)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {name: keras.initializers.serialize(getattr(self, name)) for name in ("values", "gates")}


class MLP(PreNormMixer):
    """A branch of two products with an activation between, `W2 σ(W1 x)`, or gated, `W2 (a * σ(b))`, `a, b = W1 x`.

    Args:
        hidden: number of hidden units; if gated, half of them are gates.
        gated: whether the activation of one half of the hidden units multiplies the other.
        **kwargs: the arguments of `PreNormMixer`.
    """

    def __init__(self, hidden: int, gated: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = check_positive_int("hidden", hidden)
        self.gated = bool(gated)
        if self.gated and self.hidden % 2:
            raise ValueError(f"hidden must be even where half of it are gates, got hidden={hidden}.")

    def hidden_initializers(self, inputs: int) -> dict[str, Any]:
        """Returns initialisers of W1 and its bias: gates start open, as σ(1), for every input."""
        if not self.gated:
            return {}
        own = convolution_initializers(self.initializer, inputs)
        return {
            "kernel_initializer": GateInitializer(own["kernel_initializer"], keras.initializers.RandomNormal(0, 1e-6)),
            "bias_initializer": GateInitializer(own["bias_initializer"], "ones"),
        }

    def activate(self, x: Any, axis: int) -> Any:
        """Returns σ(x), or a * σ(b) of the two halves along an axis, and may overwrite x."""
        if not self.gated:
            return backends.activate(x, self.activation)
        values, gates = backends.split(x, [self.hidden // 2], axis)
        return ops.multiply(values, self.activation(gates))

    def write_mlp(self, writer: Any, maps: Any, scale: Any = None) -> Any:
        """Writes out `s · W2 σ(W1 x)`, or gated, for a scale s of each output or None."""
        name = self.name
        if self.gated:
            values, gates = writer.convolve_in_parts(self.hidden_dense, maps, f"{name}_hidden", [self.hidden // 2])
            maps = writer.multiply(values, writer.activate(self.activation, gates, name), name)
        else:
            maps = writer.activate(self.activation, writer.convolve(self.hidden_dense, maps, f"{name}_hidden"), name)
        return writer.convolve(self.output_dense, maps, f"{name}_output", scale)

    @property
    def hidden_outputs(self) -> int:
        """Number of inputs of W2."""
        return self.hidden // 2 if self.gated else self.hidden

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden, "gated": self.gated}
