"""Pixels become what a network was trained on."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers.layers.validation import check_colors, check_data_format


@keras.saving.register_keras_serializable(package="keras_mixers")
class NormalizePixels(keras.layers.Layer):
    """Scales raw pixels by their statistics: `(x / 255 - mean) / std`.

    Input images of 3 channels with values from 0 to 255, of any dtype; output of the same shape, of the dtype in which
    the layer computes.

    Args:
        mean: mean of each colour, for pixels from 0 to 1.
        std: standard deviation of each colour, for pixels from 0 to 1.
        data_format: `"channels_last"`, `"channels_first"` or None for Keras's setting.
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Raises:
        ValueError: if an argument is not as above, or the images do not have 3 channels.

    Example:
        >>> layer = NormalizePixels(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> ops.convert_to_numpy(layer(ops.full((1, 1, 1, 3), 255))).tolist()
        [[[[2.0, 2.0, 2.0]]]]
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = check_colors("mean", mean)
        self.std = check_colors("std", std, above=0)
        self.data_format = check_data_format(data_format)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if channels != 3:
            raise ValueError(
                f"NormalizePixels takes images of 3 colours, got {channels} channels in shape {tuple(input_shape)} "
                f"with data_format={self.data_format!r}."
            )

    def call(self, x: Any) -> Any:
        shape = (3,) if self.data_format == "channels_last" else (3, 1, 1)
        std = np.reshape(self.std, shape)
        scale, offset = 1 / (255 * std), -np.reshape(self.mean, shape) / std
        product = ops.multiply(ops.cast(x, self.compute_dtype), ops.convert_to_tensor(scale, self.compute_dtype))
        # The offset comes first for the reason that `add_bias` gives.
        return ops.add(ops.convert_to_tensor(offset, self.compute_dtype), product)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std, "data_format": self.data_format}
