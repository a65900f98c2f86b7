"""Patches go in: Eq. 1 of both papers."""

from typing import Any

import keras

from keras_mixers import backends
from keras_mixers.layers.mixing_layer import PostNormLayer
from keras_mixers.layers.validation import ImageError, check_choice, check_image_batch, check_positive_int


@keras.saving.register_keras_serializable(package="keras_mixers")
class PatchConvolution(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, computed by the backend's `patch_conv`."""

    def call(self, x: Any) -> Any:
        return backends.patch_conv(x, self.kernel, self.bias, self.strides, self.padding, self.data_format)


@keras.saving.register_keras_serializable(package="keras_mixers")
class PatchEmbed(PostNormLayer):
    """Embeds patches of an image: `z_0 = N(σ{Conv(X, kernel_size=p, stride=p)})` (Eq. 1 of both papers).

    Input (batch, height, width, channels), output (batch, (height - p) // s + 1, (width - p) // s + 1, dim) with
    patch size p and stride s, in pixels; pixels on the right and below that fill no patch are left out. With
    `data_format="channels_first"` the channels come second in both.

    Args:
        dim: number of output channels, the papers' h.
        patch_size: side of a patch in pixels, p.
        stride: pixels from one patch to the next. None means `patch_size`, patches side by side; less makes them
            overlap.
        padding: `"valid"`, or `"same"` to pad with zeros so that a patch begins at every `stride`-th pixel.
        **kwargs: `activation`, `normalization`, `initializer`, `data_format` and what every Keras layer takes; see
            `PostNormLayer`.

    Raises:
        ValueError: if an argument is not as above, or an image is smaller than a patch.

    Example:
        >>> import keras
        >>> PatchEmbed(dim=256, patch_size=7)(keras.Input((224, 224, 3))).shape
        (None, 32, 32, 256)
    """

    torch_modules = {"convolution": "{stem}", "norm": "{stem_norm}"}
    torch_layouts = (*PostNormLayer.torch_layouts, "timm_mixer", "timm_resmlp", "timm_gmlp", "resmlp")

    def __init__(
        self, dim: int, patch_size: int, stride: int | None = None, padding: str = "valid", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dim = check_positive_int("dim", dim)
        self.patch_size = check_positive_int("patch_size", patch_size)
        self.stride = self.patch_size if stride is None else check_positive_int("stride", stride)
        self.padding = check_choice("padding", padding, ("valid", "same"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        self.compute_output_shape(input_shape)  # refuses an image smaller than a patch
        options = {"fan_in": self.patch_size**2 * channels, "strides": self.stride, "padding": self.padding}
        self.convolution = self.new_convolution(
            PatchConvolution, self.dim, self.patch_size, name="convolution", **options
        )
        self.convolution.build(input_shape)
        self.norm = self.make_norm(self.dim)

    def call(self, x: Any, training: bool | None = None) -> Any:
        self._grid(x.shape)  # refuses an image smaller than a patch
        return self.finish(self.convolution(x), self.norm, training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        check_image_batch(type(self).__name__, input_shape, self.channel_axis)
        batch, grid = input_shape[0], self._grid(input_shape)
        return (batch, *grid, self.dim) if self.data_format == "channels_last" else (batch, self.dim, *grid)

    def _grid(self, input_shape: tuple[int | None, ...]) -> list[int | None]:
        smallest = self.patch_size if self.padding == "valid" else 1
        sizes = input_shape[1:3] if self.data_format == "channels_last" else input_shape[2:4]
        for size in sizes:
            if size is not None and size < smallest:
                raise ImageError(
                    f"An image must be at least one patch high and wide, got {size} pixels with "
                    f"patch_size={self.patch_size}; resize the image or choose smaller patches."
                )
        return [None if size is None else (size - smallest) // self.stride + 1 for size in sizes]

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("dim", "patch_size", "stride", "padding")}
        return {**super().get_config(), **own}

    def write_out(self, writer: Any, maps: Any) -> Any:
        return writer.finish(self, self.norm, writer.convolve(self.convolution, maps, self.name), self.name)
