"""The norms N of both papers' equations, in either data format and in one pass where the backend has one."""

from typing import Any

import keras
from keras import ops


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
    """`keras.layers.BatchNormalization` of feature maps, by the backend's own operation.

    Keras computes it from means, differences and products, which XLA fuses; TensorFlow and PyTorch go over the memory
    for each, and take two to three times as long as for their own.
    """

    def in_one_product(self, training: bool | None) -> bool:
        """Whether the norm is `scale * x + shift`, with a float32 for each of the last axis: so it is in inference."""
        return self.axis == -1 and self.variable_dtype == "float32" and not (training and self.trainable)

    def scale_and_shift(self) -> tuple[Any, Any]:
        """Returns what the norm multiplies with in inference, and what it adds then: a number a channel each."""
        scale = ops.multiply(self.gamma, ops.rsqrt(ops.add(self.moving_variance, self.epsilon)))
        return scale, ops.subtract(self.beta, ops.multiply(self.moving_mean, scale))

    def scale_in_place(self, x: Any) -> Any:
        """Computes the norm in inference, on PyTorch, in the place of `x`."""
        import torch

        mean, variance, gamma, beta = self._numbers()
        scale = gamma * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul(beta - mean * scale, x, scale, out=x)

    def call(self, x: Any, training: bool | None = None) -> Any:
        training = bool(training and self.trainable)
        if keras.backend.backend() == "torch":
            return self._call_on_torch(x, training)
        if keras.backend.backend() == "tensorflow" and self.axis == -1 and self.variable_dtype == "float32":
            return self._call_on_tensorflow(x, training)
        return super().call(x, training=training)

    def _call_on_torch(self, x: Any, training: bool) -> Any:
        import torch

        x = x if self.axis == 1 else x.permute(0, 3, 1, 2)
        values = x.numel() // x.shape[1]
        if training and values == 1:  # which PyTorch refuses
            return super().call(x if self.axis == 1 else x.permute(0, 2, 3, 1), training=True)
        mean, variance, gamma, beta = self._numbers()
        if training:  # running statistics with a momentum of 1 are those of the batch
            mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
        y = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, training, momentum=1.0, eps=self.epsilon)
        if training:
            self._update(mean, _biased(variance, values))
        return y if self.axis == 1 else y.permute(0, 2, 3, 1)

    def _numbers(self) -> list[Any]:
        return [ops.convert_to_tensor(w) for w in (self.moving_mean, self.moving_variance, self.gamma, self.beta)]

    def _call_on_tensorflow(self, x: Any, training: bool) -> Any:
        import tensorflow as tf

        if training and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            wide = tf.cast(x, "float32")
            mean, variance = ops.moments(wide, axes=(0, 1, 2), synchronized=True)
            self._update(mean, variance)
            y = tf.nn.batch_normalization(wide, mean, variance, self.beta, self.gamma, self.epsilon)
            return tf.cast(y, x.dtype)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma,
            offset=self.beta,
            mean=[] if training else self.moving_mean,
            variance=[] if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            self._update(mean, _biased(variance, tf.cast(tf.size(x) // x.shape[-1], "float32")))
        return y

    def _update(self, mean: Any, variance: Any) -> None:
        """Moves the statistics towards a batch's."""
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))


def _biased(variance: Any, values: Any) -> Any:
    """Returns the variance that Keras's norms keep, from the unbiased one of so many values."""
    return variance * ((values - 1) / values)
