"""How a depthwise convolution is computed on this backend and device."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mixers import backends
from keras_mixers.layers.validation import check_choice

IMPLEMENTATIONS = {"native": backends.depthwise_native, "shifted": backends.depthwise_shifted}


def depthwise_conv(x: Any, kernel: Any, data_format: str, bias: Any = None, implementation: str | None = None) -> Any:
    """Convolves each channel with its own kernel, at stride 1, the border padded with zeros ("same").

    Args:
        x: (batch, height, width, channels), or (batch, channels, height, width) if channels first.
        kernel: (kernel height, kernel width, channels, 1).
        data_format: `"channels_last"` or `"channels_first"`.
        bias: one number per channel to add, or None.
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
    kernel = within_reach(kernel, x.shape[1:3] if data_format == "channels_last" else x.shape[2:4])
    chosen = check_implementation(implementation) or _fastest(kernel.shape[0] * kernel.shape[1])
    return IMPLEMENTATIONS[chosen](x, kernel, data_format, bias)


def within_reach(kernel: Any, sides: Sequence[int | None]) -> Any:
    """Cuts off the rows and columns of a kernel that meet only the zeros around a map, wherever on it the kernel is.

    Of 9 × 9 numbers, 7 × 7 ever meet a map of 4 × 4.

    Args:
        kernel: (kernel height, kernel width, channels, 1).
        sides: height and width of the map; one that is not known cuts nothing off.
    """
    for axis, side in enumerate(sides):
        length = kernel.shape[axis]
        if isinstance(side, int) and length // 2 >= side:
            centre = (length - 1) // 2
            reached = slice(max(centre - side + 1, 0), centre + side)
            kernel = kernel[reached] if axis == 0 else kernel[:, reached]
    return kernel


def _fastest(taps: int) -> str:
    if not backends.FASTEST_DEPTHWISE and not backends.SHIFTED_UP_TO:
        return "native"  # to ask for the device takes time
    device = backends.device()
    small = taps <= backends.SHIFTED_UP_TO.get(device, 0)
    return "shifted" if small else backends.FASTEST_DEPTHWISE.get(device, "native")


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
        self.supports_jit = backends.xla_is_fast()  # what model.compile(jit_compile="auto") goes by

    def call(self, x: Any) -> Any:
        return depthwise_conv(x, self.kernel, self.data_format, self.bias, self.implementation)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "implementation": self.implementation}
