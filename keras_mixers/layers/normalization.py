"""The norms N of the papers' equations, in either data format and in one pass where the backend has one."""

import functools
from typing import Any

import keras
from keras import ops

from keras_mixers import backends


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the channels of each position, computed as the backend does it fastest.

    Channels that come first are moved to the end and back.
    """

    def __init__(self, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        super().build((None, None, None, channels))

    def call(self, x: Any) -> Any:
        if self.gamma is None or self.beta is None:
            normalized = super().call
        else:
            normalized = functools.partial(backends.layer_norm, gamma=self.gamma, beta=self.beta, epsilon=self.epsilon)
        if self.data_format == "channels_last":
            return normalized(x)
        return ops.moveaxis(normalized(ops.moveaxis(x, 1, -1)), -1, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


@keras.saving.register_keras_serializable(package="keras_mixers")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of feature maps, computed by the backend's own operation."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        training = bool(training and self.trainable)
        moving = self.moving_mean, self.moving_variance
        y, *found = backends.batch_norm(x, *moving, self.gamma, self.beta, self.axis, self.epsilon, training)
        if training:
            for statistic, new in zip(moving, found, strict=True):
                statistic.assign(ops.cast(statistic, new.dtype) * self.momentum + new * (1 - self.momentum))
        return y


@keras.saving.register_keras_serializable(package="keras_mixers")
class Affine(keras.layers.Layer):
    """A scale and a shift per channel, `gamma * x + beta`, without statistics (ResMLP Eq. 1)."""

    def __init__(self, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, x: Any) -> Any:
        gamma, beta = (backends.spread(ops.reshape(value, self._shape), x) for value in (self.gamma, self.beta))
        return ops.add(beta, ops.multiply(gamma, x))

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        return 0

    def batch_normalized(self, output_shape: tuple[int, ...]) -> int:
        return 0

    @property
    def _shape(self) -> tuple[int, ...]:
        return (-1,) if self.data_format == "channels_last" else (-1, 1, 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


NORMALIZATIONS = ("batch", "layer", "affine", None)


def make_norm(normalization: str | None, data_format: str, epsilon: float, **options: Any) -> keras.layers.Layer | None:
    """Returns the norm that `normalization` names, not yet built; None for none."""
    if normalization == "batch":
        # PyTorch's momentum 0.1 weighs the new value, Keras's 0.9 the old one.
        axis = -1 if data_format == "channels_last" else 1
        return BatchNormalization(axis=axis, momentum=0.9, epsilon=epsilon, **options)
    if normalization == "layer":
        return ChannelNormalization(data_format=data_format, epsilon=epsilon, **options)
    return None if normalization is None else Affine(data_format=data_format, **options)
