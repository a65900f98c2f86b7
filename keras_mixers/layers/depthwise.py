"""How a depthwise convolution is computed on this backend and device."""

from typing import Any

import keras
from keras import ops

from keras_mixers.layers.bias import add_bias
from keras_mixers.layers.device import device
from keras_mixers.layers.validation import check_choice

# What is fastest where; "native", the backend's own operation, where nothing is said. Measured by
# `python docs/scripts/depthwise.py` on two cores: float32, (64, 16, 16, 256), milliseconds alone and with
# both gradients.
#
#                      1 x 5         5 x 1         5 x 5         7 x 7
# jax, native          144.1 / 402   139.4 / 632   235.6 / 887   602.6 / 2050
# jax, shifted         7.1 / 26      6.0 / 27      13.2 / 44     20.8 / 91
# tensorflow, native   3.9 / 15      4.5 / 12      4.8 / 28      6.1 / 56
# tensorflow, shifted  20.8 / 233    22.2 / 248    92.2 / 954    171.0 / 2216
# torch, native        2.3 / 11      3.9 / 8       3.7 / 31      5.3 / 44
# torch, shifted       16.6 / 73     18.8 / 63     55.7 / 360    95.0 / 608
FASTEST = {("jax", "cpu"): "shifted"}


def depthwise_conv(x: Any, kernel: Any, data_format: str, bias: Any = None, implementation: str | None = None) -> Any:
    """Convolves each channel with its own kernel, at stride 1, the border padded with zeros ("same").

    Args:
        x: (batch, height, width, channels), or (batch, channels, height, width) if channels first.
        kernel: (kernel height, kernel width, channels, 1).
        data_format: `"channels_last"` or `"channels_first"`.
        bias: a number to add for each channel, or None.
        implementation: `"native"`, the backend's own operation; `"shifted"`, a sum of shifted images, one for each
            number of the kernel; or None for the one that is fastest on this backend and device.

    Returns:
        A tensor of the shape of `x`.

    Raises:
        ValueError: if the implementation is none of these.

    Example:
        >>> import numpy as np
        >>> image, kernel = np.arange(3.0).reshape(1, 1, 3, 1), np.ones((1, 3, 1, 1))
        >>> np.asarray(depthwise_conv(image, kernel, "channels_last")).ravel().tolist()
        [1.0, 3.0, 3.0]
    """
    chosen = check_implementation(implementation) or _fastest()
    convolve = IMPLEMENTATIONS[chosen]
    if convolve is _native and keras.backend.backend() == "torch" and not _compiles():
        return _native_on_torch(x, kernel, data_format, bias)
    y = convolve(x, kernel, data_format)
    return y if bias is None else add_bias(y, bias, data_format)


def _fastest() -> str:
    backend = keras.backend.backend()
    if not any(name == backend for name, _ in FASTEST):  # to ask for the device takes time in each call
        return "native"
    return FASTEST.get((backend, device()), "native")


def _native(x: Any, kernel: Any, data_format: str) -> Any:
    return ops.depthwise_conv(x, kernel, padding="same", data_format=data_format)


def _compiles() -> bool:
    """Whether torch.compile is at work on PyTorch.

    It cannot compile the gradient of a transposed image's convolution for sizes that vary, and for fixed sizes computes
    a training step in a third of the time by Keras's operation.
    """
    import torch

    return torch.compiler.is_dynamo_compiling()


def _native_on_torch(x: Any, kernel: Any, data_format: str, bias: Any) -> Any:
    """PyTorch's own convolution, without Keras's around it, which copies the image to pad it and adds no bias."""
    import torch

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = bias if bias is None else ops.convert_to_tensor(bias)
    # A transposed image with its channels last is what PyTorch calls torch.channels_last, and goes in and out as it is.
    x = x if data_format == "channels_first" else x.permute(0, 3, 1, 2)
    y = torch.nn.functional.conv2d(x, kernel.permute(2, 3, 0, 1), bias, padding="same", groups=x.shape[1])
    return y if data_format == "channels_first" else y.permute(0, 2, 3, 1)


def _shifted(x: Any, kernel: Any, data_format: str) -> Any:
    if data_format == "channels_first":
        return ops.moveaxis(_shifted(ops.moveaxis(x, 1, -1), kernel, "channels_last"), -1, 1)
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    if keras.backend.backend() == "jax":
        from keras_mixers.layers.depthwise_on_jax import shifted_products

        return shifted_products(x, kernel[..., 0])
    (rows, columns), (height, width) = kernel.shape[:2], ops.shape(x)[1:3]
    padded = ops.pad(x, [(0, 0), ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2), (0, 0)])
    return sum(
        padded[:, i : i + height, j : j + width] * kernel[i, j, :, 0] for i in range(rows) for j in range(columns)
    )


IMPLEMENTATIONS = {"native": _native, "shifted": _shifted}


def check_implementation(implementation: str | None) -> str | None:
    """Returns `implementation` if it is None or the name of one."""
    return check_choice("implementation", implementation, (None, *IMPLEMENTATIONS))


@keras.saving.register_keras_serializable(package="keras_mixers")
class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` at stride 1 with "same" padding, computed by `depthwise_conv`."""

    def __init__(
        self,
        kernel_size: tuple[int, int],
        kernel_initializer: Any = "glorot_uniform",
        implementation: str | None = None,
        **kwargs: Any,
    ) -> None:
        # What get_config gives is taken as well: Keras's names, and the padding, which is always this.
        kwargs = {"depthwise_initializer": kernel_initializer, **kwargs, "padding": "same"}
        super().__init__(kernel_size, **kwargs)
        self.implementation = check_implementation(implementation)
        # XLA computes a depthwise convolution on the CPU about five times slower than TensorFlow's own kernel does;
        # with this, model.compile(jit_compile="auto") leaves XLA out.
        self.supports_jit = (keras.backend.backend(), device()) != ("tensorflow", "cpu")

    def call(self, x: Any) -> Any:
        return depthwise_conv(x, self.kernel, self.data_format, self.bias, self.implementation)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "implementation": self.implementation}
