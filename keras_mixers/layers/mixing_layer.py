"""What the equations of both papers have in common: `N(σ{·})` after a convolution, and a residual around it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers import backends
from keras_mixers.layers.normalization import NORMALIZATIONS, make_norm
from keras_mixers.layers.validation import (
    UnknownLayerError,
    check_activation,
    check_choice,
    check_data_format,
    check_image_batch,
    check_rate,
)


def convolution_initializers(initializer: str, fan_in: int) -> dict[str, Any]:
    """Returns the kernel and bias initialisers of a convolution or head whose outputs each sum `fan_in` products."""
    if initializer == "keras":
        return {"kernel_initializer": "glorot_uniform", "bias_initializer": "zeros"}
    bound = fan_in**-0.5
    return {
        "kernel_initializer": keras.initializers.RandomUniform(-bound, bound),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


class PostNormLayer(keras.layers.Layer):
    """A convolution followed by an activation σ and a norm N, in this order: `N(σ{Conv(x)})`.

    Subclasses make their convolutions in `build` and call `self.finish` on what these compute.

    Args:
        activation: σ, any Keras activation: a name, a function or None.
        normalization: N, `"batch"`, `"layer"` (over the channels of each position), `"affine"` (a scale and a shift per
            channel alone) or None.
        initializer: how kernels and biases start. `"torch"` is PyTorch's default, with which both papers trained:
            U(-b, b), b = 1 / sqrt(fan_in). `"keras"` is Keras's: Glorot uniform kernels, zero biases.
        data_format: `"channels_last"`, `"channels_first"` or None for Keras's setting.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Raises:
        ValueError: if an argument is none of these.
    """

    norm_epsilon = 1e-5

    def __init__(
        self,
        *,
        activation: str | Callable | None = "gelu",
        normalization: str | None = "batch",
        initializer: str = "torch",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = check_activation(activation)
        self.normalization = check_choice("normalization", normalization, NORMALIZATIONS)
        self.initializer = check_choice("initializer", initializer, ("torch", "keras"))
        self.data_format = check_data_format(data_format)

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def channels_of(self, input_shape: tuple[int | None, ...]) -> int:
        check_image_batch(type(self).__name__, input_shape, self.channel_axis)
        channels = input_shape[self.channel_axis]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={self.channel_axis: channels})
        return channels

    def shape_of(self, channels: int) -> tuple[int | None, ...]:
        """Returns the shape of feature maps of `channels` channels."""
        return (None, None, None, channels) if self.data_format == "channels_last" else (None, channels, None, None)

    def new_convolution(
        self, kind: type[keras.layers.Layer], *arguments: Any, fan_in: int, name: str, **options: Any
    ) -> Any:
        """Makes a convolution of this kind, not yet built, whose outputs each sum `fan_in` products."""
        options |= convolution_initializers(self.initializer, fan_in)
        return kind(*arguments, data_format=self.data_format, dtype=self.dtype_policy, name=name, **options)

    def make_norm(self, channels: int, name: str = "norm") -> keras.layers.Layer | None:
        """Makes N for feature maps of `channels` channels, with PyTorch's epsilon."""
        options = {"epsilon": self.norm_epsilon, "dtype": self.dtype_policy, "name": name}
        norm = make_norm(self.normalization, self.data_format, **options)
        if norm is not None:
            norm.build(self.shape_of(channels))
        return norm

    def finish(
        self, x: Any, norm: keras.layers.Layer | None, training: bool | None, residual: Any | None = None
    ) -> Any:
        """Computes `N(σ{x})`, or `N(σ{x}) + residual`, and may overwrite x."""
        return backends.post_norm(x, self.activation, norm, training, residual)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "initializer": self.initializer,
            "data_format": self.data_format,
        }

    # What the layer says of itself.

    # Where PyTorch networks have its convolutions and norms: attribute -> module. The fields are those of
    # `weights.layouts.Layout`, and {j} or {j1} number the items of a list from 0 or 1.
    torch_modules: Mapping[str, str] = {}
    # The layouts of PyTorch networks with such a layer.
    torch_layouts: tuple[str, ...] = ("timm", "convmixer", "splitmixer", "stridemixer")

    @property
    def parts(self) -> list[keras.layers.Layer]:
        """Its convolutions and norms."""
        return list(self._flatten_layers(include_self=False, recursive=False))

    @property
    def kernel_uses(self) -> int:
        """How often each position of the output takes each kernel."""
        return 1

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        """Returns the products of its kernels for an output (batch, height, width, channels), or channels first."""
        positions = math.prod(output_shape) // output_shape[self.channel_axis]
        kernels = [math.prod(part.kernel.shape) for part in self.parts if hasattr(part, "kernel")]
        return positions * self.kernel_uses * sum(kernels)

    def batch_normalized(self, output_shape: tuple[int, ...]) -> int:
        """Returns how many elements its batch norms put out for an output of this shape."""
        norms = [part for part in self.parts if isinstance(part, keras.layers.BatchNormalization)]
        return len(norms) * math.prod(output_shape)

    def write_out(self, writer: Any, maps: Any) -> Any:
        """Writes the layer out for inference in plain Keras layers.

        Args:
            writer: what writes: the `Writer` of `keras_mixers.export.folding`, whose methods say what there is.
            maps: the feature maps that come in, its `Maps`.

        Returns:
            The `Maps` that the layer puts out.

        Raises:
            UnknownLayerError: if the layer does not say how.
        """
        raise UnknownLayerError(
            f"{self.name!r} of {type(self).__name__} does not say how it is written out for inference; give the class "
            "a method write_out(writer, maps), or write_mix for a MixingLayer."
        )


class MixingLayer(PostNormLayer):
    """A layer that keeps the shape of its input and can add it to its output: `z = F(x)` or `z = F(x) + x`.

    F ends with `N(σ{·})`; subclasses write what comes before as `mix`.

    Args:
        residual: whether the input is added to the output.
        drop_path_rate: in training, the probability in [0, 1) with which F is left out for an image
            (stochastic depth); what stays is scaled by 1 / (1 - rate). Needs a residual.
        **kwargs: the arguments of `PostNormLayer`.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(self, *, residual: bool = False, drop_path_rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.residual = bool(residual)
        self.drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
        if self.drop_path_rate and not self.residual:
            raise ValueError(
                f"drop_path_rate needs residual=True, got drop_path_rate={drop_path_rate} and residual={residual}: "
                "without a residual nothing would be left of a dropped image."
            )
        self.drop_path = None
        if self.drop_path_rate:
            self.drop_path = keras.layers.Dropout(drop_path_rate, noise_shape=(None, 1, 1, 1), dtype=self.dtype_policy)

    def mix(self, x: Any, training: bool | None) -> tuple[Any, keras.layers.Layer | None]:
        """Returns what the last σ and N are to be applied to, a tensor that nobody else holds, and that N."""
        raise NotImplementedError

    def call(self, x: Any, training: bool | None = None) -> Any:
        y, norm = self.mix(x, training)
        if training and self.drop_path is not None:
            return ops.add(self.drop_path(self.finish(y, norm, training), training=True), x)
        return self.finish(y, norm, training, residual=x if self.residual else None)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "residual": self.residual, "drop_path_rate": self.drop_path_rate}

    @property
    def products(self) -> list[keras.layers.Dense]:
        """Its products of matrices, which `model.quantize` changes."""
        return [part for part in self.parts if isinstance(part, keras.layers.Dense)]

    def get_build_config(self) -> dict[str, Any]:
        # `model.quantize` changes the products within; a layer that is loaded has to do so before its weights come.
        modes = {part.quantization_mode for part in self.products}
        return {**super().get_build_config(), "quantization_mode": next(iter(modes), None)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        super().build_from_config({name: value for name, value in config.items() if name != "quantization_mode"})
        for part in self.products if config.get("quantization_mode") else ():
            part.quantize(config["quantization_mode"])

    @property
    def last_norm(self) -> keras.layers.Layer | None:
        """The N that `mix` returns."""
        return self.norm

    def write_mix(self, writer: Any, maps: Any) -> Any:
        """Writes out what `mix` computes; σ, N and the residual follow in `write_out`, which has the arguments."""
        return super().write_out(writer, maps)  # refuses

    def write_out(self, writer: Any, maps: Any) -> Any:
        maps, close = writer.residual(self, self.last_norm, writer.grid(maps))
        return close(writer.finish(self, self.last_norm, self.write_mix(writer, maps), self.name))

    def mixed_channels(self, dim: int) -> np.ndarray | None:
        """Returns (dim, dim) of bool: from which channels (columns) F computes each (rows); None for each by itself."""
        return None
