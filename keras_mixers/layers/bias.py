"""How a bias is added to feature maps, in either data format."""

from typing import Any

from keras import ops


def add_bias(x: Any, bias: Any, data_format: str) -> Any:
    """Adds `bias`, one number a channel, to `x` of rank 4.

    With the channels first, so is the bias in the sum: Keras on TensorFlow takes a second summand that is as long as
    the last axis for a bias of channels last, and would add it along the width of an image that is as wide as there are
    channels. With the channels last it is such a bias, and TensorFlow adds it within the convolution.
    """
    if data_format == "channels_last":
        return ops.add(x, bias)
    return ops.add(ops.reshape(bias, (-1, 1, 1)), x)
