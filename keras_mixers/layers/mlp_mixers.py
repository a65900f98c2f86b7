"""Positions and channels are mixed by products: MLP-Mixer, gMixer, ResMLP and gMLP. T transposes both."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers import backends
from keras_mixers.layers.normalization import make_norm
from keras_mixers.layers.pre_norm_mixer import MLP, PreNormMixer
from keras_mixers.layers.validation import check_positive_int


@keras.saving.register_keras_serializable(package="keras_mixers")
class TokenMLP(MLP):
    """Mixes the positions of each channel with an MLP: `z' = z + T(W2 σ(W1 T(N(z))))` (MLP-Mixer Eq. 1).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`. All channels share the MLP, whose inputs and outputs are the positions of the grid
    that the layer is built for; it takes no other.

    Args:
        hidden: number of hidden units, D_S; if gated, half of them are gates.
        gated: whether the activation of one half of the hidden units multiplies the other (gMixer).
        **kwargs: `normalization` (`"layer"`), `layer_scale`, `residual`, `activation`, `initializer`, `data_format`,
            `drop_path_rate` and what every Keras layer takes; see `PreNormMixer`.

    Raises:
        ValueError: if an argument is not as above, or the grid is unknown or another than it was built for.

    Example:
        >>> import keras
        >>> TokenMLP(hidden=32)(keras.Input((4, 4, 8))).shape
        (None, 4, 4, 8)
    """

    torch_modules = {
        "norm": "{spatial_norm}",
        "hidden_dense": "{spatial}.fc1",
        "output_dense": "{spatial}.fc2",
        "scale": "{spatial_scale}",
    }
    torch_layouts = ("timm_mixer",)

    def build_branch(self, input_shape: tuple[int | None, ...], channels: int) -> None:
        positions = self.positions_of(input_shape)
        start = self.hidden_initializers(positions)
        self.hidden_dense = self.token_dense(positions, self.hidden, channels, "hidden_dense", **start)
        self.output_dense = self.token_dense(self.hidden_outputs, positions, channels, "output_dense")

    def branch(self, x: Any) -> Any:
        y = self.activate(self.hidden_dense(self.to_tokens(x)), axis=1)
        return self.from_tokens(self.output_dense(y))

    def write_mix(self, writer: Any, maps: Any) -> Any:
        maps = writer.transpose(writer.norm(self.norm, maps, f"{self.name}_norm", apply=True), f"{self.name}_transpose")
        maps = writer.transpose(self.write_mlp(writer, maps), f"{self.name}_transpose_back")
        return writer.scale(maps, self.scale)


@keras.saving.register_keras_serializable(package="keras_mixers")
class TokenLinear(PreNormMixer):
    """Mixes the positions of each channel with one product: `z' = z + s · T(W T(N(z)))` (ResMLP Eq. 2).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`. The layer takes the grid that it is built for, and no other.

    Args:
        **kwargs: `normalization` (`"affine"`), `layer_scale`, `residual`, `initializer`, `data_format`,
            `drop_path_rate` and what every Keras layer takes; see `PreNormMixer`. There is no activation.

    Raises:
        ValueError: if an argument is not as above, or the grid is unknown or another than it was built for.

    Example:
        >>> import keras
        >>> TokenLinear(layer_scale=1e-4)(keras.Input((4, 4, 8))).shape
        (None, 4, 4, 8)
    """

    torch_modules = {"norm": "{spatial_norm}", "product": "{spatial}", "scale": "{spatial_scale}"}
    torch_layouts = ("timm_resmlp", "resmlp")

    def __init__(self, *, normalization: str | None = "affine", **kwargs: Any) -> None:
        super().__init__(normalization=normalization, **kwargs)

    def build_branch(self, input_shape: tuple[int | None, ...], channels: int) -> None:
        positions = self.positions_of(input_shape)
        self.product = self.token_dense(positions, positions, channels, "product")

    def branch(self, x: Any) -> Any:
        return self.from_tokens(self.product(self.to_tokens(x)))

    def write_mix(self, writer: Any, maps: Any) -> Any:
        maps = writer.transpose(writer.norm(self.norm, maps, f"{self.name}_norm", apply=True), f"{self.name}_transpose")
        maps = writer.transpose(writer.convolve(self.product, maps, self.name), f"{self.name}_transpose_back")
        return writer.scale(maps, self.scale)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelMLP(MLP):
    """Mixes the channels of each position with an MLP: `z' = z + s · W2 σ(W1 N(z))` (MLP-Mixer Eq. 1, ResMLP Eq. 3).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`.

    Args:
        hidden: number of hidden units, D_C; if gated, half of them are gates.
        gated: whether the activation of one half of the hidden units multiplies the other (gMixer).
        **kwargs: `normalization` (`"layer"`), `layer_scale`, `residual`, `activation`, `initializer`, `data_format`,
            `drop_path_rate` and what every Keras layer takes; see `PreNormMixer`.

    Raises:
        ValueError: if an argument is not as above, or the input is not a batch of images.

    Example:
        >>> import keras
        >>> ChannelMLP(hidden=32)(keras.Input((4, 4, 8))).shape
        (None, 4, 4, 8)
    """

    torch_modules = {
        "norm": "{channel_norm}",
        "hidden_dense": "{channel}.fc1",
        "output_dense": "{channel}.fc2",
        "scale": "{channel_scale}",
    }
    torch_layouts = ("timm_mixer", "timm_resmlp", "resmlp")

    def build_branch(self, input_shape: tuple[int | None, ...], channels: int) -> None:
        start = self.hidden_initializers(channels)
        self.hidden_dense = self.dense(channels, self.hidden, "hidden_dense", **start)
        self.output_dense = self.dense(self.hidden_outputs, channels, "output_dense")

    def branch(self, x: Any) -> Any:
        return self.output_dense(self.activate(self.hidden_dense(x), self.channel_axis))

    def write_mix(self, writer: Any, maps: Any) -> Any:
        return self.write_mlp(writer, writer.norm(self.norm, maps, f"{self.name}_norm"), self.scale)

    def mixed_channels(self, dim: int) -> np.ndarray:
        return np.ones((dim, dim), bool)


@keras.saving.register_keras_serializable(package="keras_mixers")
class SpatialGatingMLP(PreNormMixer):
    """Mixes channels with an MLP whose hidden units are gated by other positions (gMLP Section 2).

    `z' = z + W2 (u * T(W T(N'(v))))` with `u, v = split(σ(W1 N(z)))`: the spatial gating unit, in which W mixes the
    positions of each channel of v. W starts near zero and its bias at one, so that u passes unchanged at first.

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`. The layer takes the grid that it is built for, and no other.

    Args:
        hidden: number of hidden units, an even number; one half gates the other.
        **kwargs: `normalization` (`"layer"`), `layer_scale`, `residual`, `activation`, `initializer`, `data_format`,
            `drop_path_rate` and what every Keras layer takes; see `PreNormMixer`.

    Raises:
        ValueError: if an argument is not as above, or the grid is unknown or another than it was built for.

    Example:
        >>> import keras
        >>> SpatialGatingMLP(hidden=32)(keras.Input((4, 4, 8))).shape
        (None, 4, 4, 8)
    """

    torch_modules = {
        "norm": "{channel_norm}",
        "hidden_dense": "{channel}.fc1",
        "gate_norm": "{channel}.gate.norm",
        "gate_dense": "{channel}.gate.proj",
        "output_dense": "{channel}.fc2",
        "scale": "{channel_scale}",
    }
    torch_layouts = ("timm_gmlp",)

    def __init__(self, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = check_positive_int("hidden", hidden)
        if self.hidden % 2:
            raise ValueError(f"hidden must be even, as one half gates the other, got hidden={hidden}.")

    def build_branch(self, input_shape: tuple[int | None, ...], channels: int) -> None:
        positions, half = self.positions_of(input_shape), self.hidden // 2
        self.hidden_dense = self.dense(channels, self.hidden, "hidden_dense")
        self.gate_norm = make_norm("layer", self.data_format, 1e-5, dtype=self.dtype_policy, name="gate_norm")
        self.gate_norm.build(self.shape_of(half))
        start = {"kernel_initializer": keras.initializers.RandomNormal(stddev=1e-6), "bias_initializer": "ones"}
        self.gate_dense = self.token_dense(positions, positions, half, "gate_dense", **start)
        self.output_dense = self.dense(half, channels, "output_dense")

    def branch(self, x: Any) -> Any:
        x = backends.activate(self.hidden_dense(x), self.activation)
        values, gates = backends.split(x, [self.hidden // 2], self.channel_axis)
        gates = self.from_tokens(self.gate_dense(self.to_tokens(self.gate_norm(gates))))
        return self.output_dense(ops.multiply(values, gates))

    def write_mix(self, writer: Any, maps: Any) -> Any:
        name = self.name
        maps = writer.norm(self.norm, maps, f"{name}_norm")
        parts = writer.convolve_in_parts(self.hidden_dense, maps, f"{name}_hidden", [self.hidden // 2])
        values, gates = (
            writer.activate(self.activation, part, f"{name}_{which}")
            for part, which in zip(parts, ("values", "gates"), strict=True)
        )
        gates = writer.norm(self.gate_norm, gates, f"{name}_gate_norm", apply=True)
        gates = writer.convolve(self.gate_dense, writer.transpose(gates, f"{name}_transpose"), f"{name}_gate")
        maps = writer.multiply(values, writer.transpose(gates, f"{name}_transpose_back"), name)
        return writer.convolve(self.output_dense, maps, f"{name}_output", self.scale)

    def mixed_channels(self, dim: int) -> np.ndarray:
        return np.ones((dim, dim), bool)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden}
