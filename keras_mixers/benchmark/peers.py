"""What our networks are measured against: the same in plain Keras, in plain PyTorch, and kimm's.

PyTorch and kimm are imported where they are used.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from keras_mixers import backends
from keras_mixers.benchmark.mlp_peers import BUILDERS, MLPSizes, keras_mlp_network, mlp_sizes_of, torch_mlp_network
from keras_mixers.layers.validation import check_choice
from keras_mixers.models import ConvMixer, SplitMixerI, get_preset

if TYPE_CHECKING:
    import torch

# What `against` takes, and the subjects that are then measured: the fastest of them counts.
PEERS = {
    "keras": ("keras",),
    "kimm": ("kimm",),
    "torch": ("torch eager contiguous", "torch eager channels_last"),
    "torch-compiled": ("torch compiled contiguous", "torch compiled channels_last"),
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a ConvMixer, or of a SplitMixer-I if it has a ratio, named as in their builders."""

    dim: int
    blocks: int
    kernel_size: int
    patch_size: int
    num_classes: int
    ratio: float | None = None
    activation: str = "gelu"

    def segment(self, block: int) -> tuple[int, int]:
        """Returns the channels [start, stop) that a block of SplitMixer-I mixes."""
        width = int(self.dim * self.ratio)
        return (0, width) if block % 2 == 0 else (self.dim - width, self.dim)


KIMM_MODELS = {
    Sizes(1536, 20, 9, 7, 1000): "ConvMixer1536D20",
    Sizes(768, 32, 7, 7, 1000, activation="relu"): "ConvMixer736D32",
    Sizes(1024, 20, 9, 14, 1000): "ConvMixer1024D20",
}


def sizes_of(name: str) -> Sizes | MLPSizes:
    """Returns the sizes of a network of the table whose builder has peers.

    Example:
        >>> sizes_of("splitmixer_i_256_8").segment(block=1)
        (86, 256)
    """
    preset = get_preset(name)
    if preset.builder in BUILDERS:
        return mlp_sizes_of(preset)
    if preset.builder not in (ConvMixer, SplitMixerI):
        raise ValueError(
            f"Peers exist for ConvMixer, SplitMixerI, MLPMixer, ResMLP and gMLP, got {name!r}, which "
            f"{preset.builder.__name__} builds; it is measured alone."
        )
    others = {name: value for name, value in preset.arguments.items() if name != preset.builder.blocks_argument}
    return Sizes(blocks=preset.blocks, **others)


def check_peer(peer: str) -> str:
    """Returns `peer` if it is one of `PEERS` and what it needs is installed."""
    check_choice("against", peer, tuple(PEERS))
    package = peer.partition("-")[0]
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"against {peer!r} needs {package}, which is not installed; pip install {package}.")
    if package == "torch" and backends.device() == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                f"against {peer!r} needs a PyTorch that reaches the GPU on which {backends.NAME} computes, "
                f"got torch {torch.__version__}; install one for CUDA."
            )
    compiler = os.environ.get("CXX", "g++")
    if peer == "torch-compiled" and backends.device() == "cpu" and shutil.which(compiler) is None:
        raise ValueError(f"against {peer!r} needs a C++ compiler, got {compiler!r}, which is not installed.")
    return peer


def keras_network(sizes: Sizes | MLPSizes, image_size: int, dtype: str = "float32") -> keras.Model:
    """Makes the network of plain Keras layers, channels last, for square images of `image_size` pixels a side."""
    if isinstance(sizes, MLPSizes):
        with _dtype_policy(dtype):
            return keras_mlp_network(sizes, image_size)
    last = {"data_format": "channels_last"}

    def post_norm(x: Any) -> Any:
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(layers.Activation(sizes.activation)(x))

    def depthwise(x: Any, *kernel: int) -> Any:
        return post_norm(layers.DepthwiseConv2D(kernel, padding="same", **last)(x))

    with _dtype_policy(dtype):
        x = image = keras.Input((image_size, image_size, 3))
        x = post_norm(layers.Conv2D(sizes.dim, sizes.patch_size, strides=sizes.patch_size, **last)(x))
        for block in range(sizes.blocks):
            if sizes.ratio is None:
                mixed = depthwise(x, sizes.kernel_size, sizes.kernel_size)
            else:
                mixed = depthwise(depthwise(x, 1, sizes.kernel_size), sizes.kernel_size, 1)
            x = layers.Add()([mixed, x])
            if sizes.ratio is None:
                x = layers.Conv2D(sizes.dim, 1, **last)(x)
            else:
                start, stop = sizes.segment(block)
                convolved = layers.Conv2D(stop - start, 1, **last)(x[..., start:stop])
                x = layers.Concatenate()([x[..., :start], convolved] if start else [convolved, x[..., stop:]])
            x = post_norm(x)
        x = layers.GlobalAveragePooling2D(**last)(x)
        return keras.Model(image, layers.Dense(sizes.num_classes)(x))


def torch_network(sizes: Sizes | MLPSizes, image_size: int = 224) -> "torch.nn.Module":
    """Makes the network in PyTorch as both papers print it, one `nn.Sequential` whose weights have layout "convmixer".

    It takes (batch, 3, height, width), in either memory format. MLP-Mixer and its kin are `torch_mlp_network`, for
    images of `image_size` pixels a side.
    """
    if isinstance(sizes, MLPSizes):
        return torch_mlp_network(sizes, image_size)
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, *modules: nn.Module) -> None:
            super().__init__()
            self.fn = nn.Sequential(*modules)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fn(x) + x

    class MixSegment(nn.Module):
        def __init__(self, start: int, stop: int) -> None:
            super().__init__()
            self.start, self.stop = start, stop
            self.mixer = nn.Conv2d(stop - start, stop - start, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed = self.mixer(x[:, self.start : self.stop])
            return torch.cat([x[:, : self.start], mixed] if self.start else [mixed, x[:, self.stop :]], dim=1)

    dim, activation = sizes.dim, {"gelu": nn.GELU, "relu": nn.ReLU}[sizes.activation]

    def post_norm(convolution: nn.Module) -> list[nn.Module]:
        return [convolution, activation(), nn.BatchNorm2d(dim)]

    def depthwise(*kernel: int) -> list[nn.Module]:
        return post_norm(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same"))

    def block(i: int) -> nn.Module:
        k = sizes.kernel_size
        if sizes.ratio is None:
            return nn.Sequential(Residual(*depthwise(k, k)), *post_norm(nn.Conv2d(dim, dim, 1)))
        return nn.Sequential(Residual(*depthwise(1, k), *depthwise(k, 1)), *post_norm(MixSegment(*sizes.segment(i))))

    return nn.Sequential(
        *post_norm(nn.Conv2d(3, dim, sizes.patch_size, stride=sizes.patch_size)),
        *(block(i) for i in range(sizes.blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(dim, sizes.num_classes),
    )


def check_kimm(sizes: Sizes | MLPSizes, image_size: int) -> str:
    """Returns the name of kimm's class of these sizes, if there is one that takes such images."""
    if sizes not in KIMM_MODELS:
        raise ValueError(
            f"kimm has the ConvMixers 1536/20, 768/32 and 1024/20 for ImageNet, got {sizes}; compare others with "
            "'keras' or 'torch'."
        )
    if image_size < 32:
        raise ValueError(f"kimm takes images of 32 pixels or more, got image_size={image_size}; choose larger ones.")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "kimm's models follow Keras's image_data_format, which must be 'channels_last' here, got "
            f"{keras.config.image_data_format()!r}; call keras.config.set_image_data_format('channels_last')."
        )
    return KIMM_MODELS[sizes]


def kimm_network(sizes: Sizes, image_size: int, dtype: str = "float32") -> keras.Model:
    """Makes kimm's network as `keras_network` makes a plain one, without its softmax and preprocessing."""
    kind = check_kimm(sizes, image_size)
    check_peer("kimm")
    import kimm

    with _dtype_policy(dtype):
        shape = (image_size, image_size, 3)
        plain = {"include_preprocessing": False, "classifier_activation": None, "weights": None}
        return getattr(kimm.models, kind)(input_shape=shape, **plain)


@contextmanager
def _dtype_policy(dtype: str) -> Iterator[None]:
    """Makes layers under a global dtype policy, as a user would set it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
