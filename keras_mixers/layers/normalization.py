"""The norms N of both papers' equations, in either data format and in one pass where the backend has one."""

from typing import Any

import keras
from keras import ops

from keras_mixers import backends


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the channels of each position, in either data format.

    Keras's own fails on PyTorch for any axis but the last, so the channels are moved there and back.
    """

    def __init__(self, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        super().build((None, None, None, channels))

    def call(self, x: Any) -> Any:
        if self.data_format == "channels_last":
            return super().call(x)
        return ops.moveaxis(super().call(ops.moveaxis(x, 1, -1)), -1, 1)

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
