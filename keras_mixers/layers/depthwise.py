"""How a depthwise convolution is computed on this backend and device."""

from typing import Any

import keras
from keras import ops

from keras_mixers.layers.bias import add_bias


def depthwise_conv(x: Any, kernel: Any, data_format: str) -> Any:
    """Convolves each channel with its own kernel, at stride 1, the border padded with zeros ("same").

    Args:
        x: (batch, height, width, channels), or (batch, channels, height, width) if channels first.
        kernel: (kernel height, kernel width, channels, 1).
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        A tensor of the shape of `x`.

    Example:
        >>> import numpy as np
        >>> image, kernel = np.arange(3.0).reshape(1, 1, 3, 1), np.ones((1, 3, 1, 1))
        >>> np.asarray(depthwise_conv(image, kernel, "channels_last")).ravel().tolist()
        [1.0, 3.0, 3.0]
    """
    if _on_cpu("jax"):
        return _shifted_products(x, kernel, data_format)
    return ops.depthwise_conv(x, kernel, padding="same", data_format=data_format)


def _on_cpu(backend: str) -> bool:
    """Whether `backend` is the Keras backend and computes on the CPU."""
    if keras.backend.backend() != backend:
        return False
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def _shifted_products(x: Any, kernel: Any, data_format: str) -> Any:
    """The convolution as a sum of kernel height × kernel width products of the image, shifted, and one tap.

    XLA has no fast depthwise convolution for CPUs, but makes one loop of this sum: 10 to 40 times faster.
    """
    import jax

    x, kernel = jax.numpy.asarray(x), jax.numpy.asarray(kernel)
    rows, columns = kernel.shape[:2]
    height_axis = 1 if data_format == "channels_last" else 2
    tap_shape = (-1,) if data_format == "channels_last" else (-1, 1, 1)
    pads = [(0, 0)] * 4
    pads[height_axis] = ((rows - 1) // 2, rows // 2)
    pads[height_axis + 1] = ((columns - 1) // 2, columns // 2)
    height, width = x.shape[height_axis : height_axis + 2]
    padded = jax.numpy.pad(x, pads)
    total = None
    for i in range(rows):
        for j in range(columns):
            shifted = jax.lax.slice_in_dim(padded, i, i + height, axis=height_axis)
            shifted = jax.lax.slice_in_dim(shifted, j, j + width, axis=height_axis + 1)
            product = shifted * kernel[i, j].reshape(tap_shape)
            total = product if total is None else total + product
    return total


@keras.saving.register_keras_serializable(package="keras_mixers")
class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` at stride 1 with "same" padding, computed by `depthwise_conv`."""

    def __init__(self, kernel_size: tuple[int, int], kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(kernel_size, padding="same", depthwise_initializer=kernel_initializer, **kwargs)
        # XLA computes a depthwise convolution on the CPU about five times slower than TensorFlow's own kernel does;
        # with this, model.compile(jit_compile="auto") leaves XLA out.
        self.supports_jit = not _on_cpu("tensorflow")

    def call(self, x: Any) -> Any:
        return add_bias(depthwise_conv(x, self.kernel, self.data_format), self.bias, self.data_format)
