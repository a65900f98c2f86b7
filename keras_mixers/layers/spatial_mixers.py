"""Space is mixed: one depthwise convolution in ConvMixer (Eq. 2), two one-dimensional ones in SplitMixer (Eqs. 2-3)."""

from typing import Any

import keras

from keras_mixers.layers.depthwise import DepthwiseConvolution, check_implementation
from keras_mixers.layers.mixing_layer import MixingLayer
from keras_mixers.layers.validation import check_positive_int


class SpatialMixer(MixingLayer):
    """What both spatial mixers share: a kernel size, and a residual unless it is declined."""

    def __init__(
        self, kernel_size: int, *, residual: bool = True, implementation: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(residual=residual, **kwargs)
        self.kernel_size = check_positive_int("kernel_size", kernel_size)
        self.implementation = check_implementation(implementation)

    def make_convolution(self, channels: int, kernel_size: tuple[int, int], name: str) -> DepthwiseConvolution:
        options = {"fan_in": kernel_size[0] * kernel_size[1], "implementation": self.implementation, "name": name}
        convolution = self.new_convolution(DepthwiseConvolution, kernel_size, **options)
        convolution.build(self.shape_of(channels))
        return convolution

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size, "implementation": self.implementation}


@keras.saving.register_keras_serializable(package="keras_mixers")
class SpatialMixer2D(SpatialMixer):
    """Mixes space with a k × k depthwise convolution: `z' = N(σ{ConvDepthwise(z)}) + z` (ConvMixer Eq. 2).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`. The border is padded with zeros, one more below and on the right if k is even.

    Args:
        kernel_size: side k of the kernel, in patches.
        residual: whether z is added.
        implementation: how the convolutions are computed, `"native"`, `"shifted"` or None for the fastest; see
            `depthwise_conv`.
        **kwargs: `activation`, `normalization`, `initializer`, `data_format`, `drop_path_rate` and what every Keras
            layer takes; see `PostNormLayer` and `MixingLayer`.

    Raises:
        ValueError: if an argument is not as above, or the input is not a batch of images.

    Example:
        >>> import keras
        >>> mixer = SpatialMixer2D(kernel_size=9)
        >>> mixer(keras.Input((16, 16, 8))).shape
        (None, 16, 16, 8)
    """

    torch_modules = {"convolution": "{spatial}.0", "norm": "{spatial}.2"}
    torch_layouts = ("timm", "convmixer")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        self.convolution = self.make_convolution(channels, (self.kernel_size, self.kernel_size), "convolution")
        self.norm = self.make_norm(channels)

    def mix(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        return self.convolution(x), self.norm

    def write_mix(self, writer: Any, maps: Any) -> Any:
        return writer.convolve(self.convolution, maps, f"{self.name}_depthwise")


@keras.saving.register_keras_serializable(package="keras_mixers")
class SpatialMixer1D(SpatialMixer):
    """Mixes space across the width, then across the height, with two depthwise convolutions (SplitMixer Eqs. 2-3).

    `z' = N(σ{ConvDepthwise_1×k(z)})`, then `z'' = N(σ{ConvDepthwise_k×1(z')}) + z`: one residual around both.

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`. The border is padded with zeros, one more below and on the right if k is even.

    Args:
        kernel_size: length k of both kernels, in patches.
        residual: whether z is added.
        implementation: how the convolutions are computed, `"native"`, `"shifted"` or None for the fastest; see
            `depthwise_conv`.
        **kwargs: `activation`, `normalization`, `initializer`, `data_format`, `drop_path_rate` and what every Keras
            layer takes; see `PostNormLayer` and `MixingLayer`.

    Raises:
        ValueError: if an argument is not as above, or the input is not a batch of images.

    Example:
        >>> import keras
        >>> mixer = SpatialMixer1D(kernel_size=5)
        >>> mixer(keras.Input((16, 16, 8))).shape
        (None, 16, 16, 8)
    """

    torch_modules = {
        "width_convolution": "{spatial}.0",
        "width_norm": "{spatial}.2",
        "height_convolution": "{spatial}.3",
        "height_norm": "{spatial}.5",
    }
    torch_layouts = ("convmixer", "splitmixer", "stridemixer")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        self.width_convolution = self.make_convolution(channels, (1, self.kernel_size), "width_convolution")
        self.width_norm = self.make_norm(channels, "width_norm")
        self.height_convolution = self.make_convolution(channels, (self.kernel_size, 1), "height_convolution")
        self.height_norm = self.make_norm(channels, "height_norm")

    def mix(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        x = self.finish(self.width_convolution(x), self.width_norm, training)
        return self.height_convolution(x), self.height_norm

    @property
    def last_norm(self) -> keras.layers.Layer | None:
        return self.height_norm

    def write_mix(self, writer: Any, maps: Any) -> Any:
        name = f"{self.name}_width"
        maps = writer.finish(self, self.width_norm, writer.convolve(self.width_convolution, maps, name), name)
        return writer.convolve(self.height_convolution, maps, f"{self.name}_height")
