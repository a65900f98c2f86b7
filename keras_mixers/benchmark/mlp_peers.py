"""MLP-Mixer, ResMLP and gMLP in plain Keras and in plain PyTorch, which is imported where it is used."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from keras_mixers.models import MLPMixer, Preset, ResMLP, gMLP

if TYPE_CHECKING:
    import torch

BUILDERS = (MLPMixer, ResMLP, gMLP)
EPSILON, GATE_EPSILON = 1e-6, 1e-5
LAYER_SCALE = 1e-4


@dataclass(frozen=True)
class MLPSizes:
    """The sizes of an MLP-Mixer, ResMLP or gMLP, as `family` says; `token_hidden` is MLP-Mixer's alone."""

    family: str
    dim: int
    blocks: int
    patch_size: int
    num_classes: int
    token_hidden: int
    channel_hidden: int

    def positions(self, image_size: int) -> int:
        """Returns the number of patches of a square image."""
        return (image_size // self.patch_size) ** 2


def mlp_sizes_of(preset: Preset) -> MLPSizes:
    """Returns the sizes of a row of the table that one of `BUILDERS` builds."""
    parameters = inspect.signature(preset.builder).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    chosen = {"token_ratio": 0.0, **defaults, **preset.arguments}
    hidden = {kind: int(chosen[f"{kind}_ratio"] * chosen["dim"]) for kind in ("token", "channel")}
    names = ("dim", "blocks", "patch_size", "num_classes")
    return MLPSizes(
        preset.family, *(chosen[name] for name in names), token_hidden=hidden["token"], channel_hidden=hidden["channel"]
    )


class Affine(layers.Layer):
    """`gamma * x + beta`, or without `beta` ResMLP's LayerScale."""

    def __init__(self, shift: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = shift

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        start = "ones" if self.shift else keras.initializers.Constant(LAYER_SCALE)
        name = "gamma" if self.shift else "scale"
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer=start, name=name)
        self.beta = self.add_weight(shape=input_shape[-1:], initializer="zeros", name="beta") if self.shift else None

    def call(self, x: Any) -> Any:
        return self.gamma * x if self.beta is None else self.gamma * x + self.beta


def keras_mlp_network(sizes: MLPSizes, image_size: int) -> keras.Model:
    """Makes the network of plain Keras layers, channels last, for square images of `image_size` pixels a side."""
    positions, is_resmlp = sizes.positions(image_size), sizes.family == "ResMLP"

    def norm(x: Any) -> Any:
        return Affine()(x) if is_resmlp else layers.LayerNormalization(epsilon=EPSILON)(x)

    def transposed(x: Any) -> Any:
        return layers.Permute((2, 1))(x)

    def add(x: Any, branch: Any) -> Any:
        return layers.Add()([x, Affine(shift=False)(branch) if is_resmlp else branch])

    def mlp(x: Any, hidden: int, outputs: int) -> Any:
        return layers.Dense(outputs)(layers.Dense(hidden, activation="gelu")(x))

    def gated_mlp(x: Any) -> Any:
        half = sizes.channel_hidden // 2
        x = layers.Dense(sizes.channel_hidden, activation="gelu")(x)
        gates = transposed(layers.LayerNormalization(epsilon=GATE_EPSILON)(x[..., half:]))
        start = {"kernel_initializer": keras.initializers.RandomNormal(stddev=1e-6), "bias_initializer": "ones"}
        gates = transposed(layers.Dense(positions, **start)(gates))
        return layers.Dense(sizes.dim)(layers.Multiply()([x[..., :half], gates]))

    x = image = keras.Input((image_size, image_size, 3))
    x = layers.Conv2D(sizes.dim, sizes.patch_size, strides=sizes.patch_size, data_format="channels_last")(x)
    x = layers.Reshape((positions, sizes.dim))(x)
    for _ in range(sizes.blocks):
        if sizes.family == "gMLP":
            x = add(x, gated_mlp(norm(x)))
            continue
        tokens = transposed(norm(x))
        tokens = layers.Dense(positions)(tokens) if is_resmlp else mlp(tokens, sizes.token_hidden, positions)
        x = add(x, transposed(tokens))
        x = add(x, mlp(norm(x), sizes.channel_hidden, sizes.dim))
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(norm(x))
    return keras.Model(image, layers.Dense(sizes.num_classes)(x))


def torch_mlp_network(sizes: MLPSizes, image_size: int) -> "torch.nn.Module":
    """Makes the network in PyTorch, with modules named and weights laid out as timm's.

    It takes (batch, 3, height, width).
    """
    import torch
    from torch import nn

    dim, positions, is_resmlp = sizes.dim, sizes.positions(image_size), sizes.family == "ResMLP"

    class Affine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, dim))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addcmul(self.beta, self.alpha, x)

    def norm() -> nn.Module:
        return Affine() if is_resmlp else nn.LayerNorm(dim, eps=EPSILON)

    class Gate(nn.Module):
        def __init__(self, half: int) -> None:
            super().__init__()
            self.norm, self.proj = nn.LayerNorm(half, eps=GATE_EPSILON), nn.Linear(positions, positions)
            nn.init.normal_(self.proj.weight, std=1e-6)
            nn.init.ones_(self.proj.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values, gates = x.chunk(2, dim=-1)
            return values * self.proj(self.norm(gates).transpose(1, 2)).transpose(1, 2)

    class MLP(nn.Module):
        def __init__(self, inputs: int, hidden: int, gate: bool = False) -> None:
            super().__init__()
            self.fc1, self.act = nn.Linear(inputs, hidden), nn.GELU()
            self.gate = Gate(hidden // 2) if gate else nn.Identity()
            self.fc2 = nn.Linear(hidden // 2 if gate else hidden, inputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(self.gate(self.act(self.fc1(x))))

    class MixerBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.mlp_tokens = norm(), MLP(positions, sizes.token_hidden)
            self.norm2, self.mlp_channels = norm(), MLP(dim, sizes.channel_hidden)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.mlp_channels(self.norm2(x))

    class ResMLPBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.linear_tokens = norm(), nn.Linear(positions, positions)
            self.norm2, self.mlp_channels = norm(), MLP(dim, sizes.channel_hidden)
            self.ls1, self.ls2 = (nn.Parameter(LAYER_SCALE * torch.ones(dim)) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.ls1 * self.linear_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.ls2 * self.mlp_channels(self.norm2(x))

    class GMLPBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mlp_channels = norm(), MLP(dim, sizes.channel_hidden, gate=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.mlp_channels(self.norm(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            block = {"MLP-Mixer": MixerBlock, "ResMLP": ResMLPBlock, "gMLP": GMLPBlock}[sizes.family]
            self.stem = nn.ModuleDict({"proj": nn.Conv2d(3, dim, sizes.patch_size, stride=sizes.patch_size)})
            self.blocks = nn.Sequential(*(block() for _ in range(sizes.blocks)))
            self.norm, self.head = norm(), nn.Linear(dim, sizes.num_classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem["proj"](x).flatten(2).transpose(1, 2)
            return self.head(self.norm(self.blocks(x)).mean(dim=1))

    return Network()
