import keras
import numpy as np
import pytest
import reference
from agreement import TOLERANCE, array, gradients, transposed

from keras_mixers.layers.depthwise import depthwise_conv

SHAPE = (2, 5, 4, 3)

KERNELS = [(1, 1), (1, 3), (1, 4), (3, 1), (4, 1), (3, 3), (4, 4), (2, 3)]
LARGER_THAN_THE_IMAGE = [(1, 9), (1, 14), (9, 1), (8, 1), (6, 5), (7, 7)]


def in_format(function, data_format):
    """Give the depthwise convolution as a function of channels-last arrays."""
    if data_format == "channels_last":
        return lambda x, kernel: function(x, kernel, data_format)

    def transposing(x, kernel):
        y = function(keras.ops.transpose(x, (0, 3, 1, 2)), kernel, data_format)
        return keras.ops.transpose(y, (0, 2, 3, 1))

    return transposing


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kernel_size", KERNELS + LARGER_THAN_THE_IMAGE, ids=str)
def test_output_and_gradients_equal_the_reference(kernel_size, data_format, rng):
    x, kernel, upstream = rng.normal(size=SHAPE), rng.normal(size=(*kernel_size, SHAPE[-1], 1)), rng.normal(size=SHAPE)
    kernel /= np.sqrt(np.prod(kernel_size))
    function = in_format(depthwise_conv, data_format)

    y = function(keras.ops.convert_to_tensor(x, "float32"), keras.ops.convert_to_tensor(kernel, "float32"))
    for_x, for_kernel = gradients(function, upstream, x, kernel)

    expected_for_x, expected_for_kernel = reference.depthwise_gradients(x, kernel, upstream)
    np.testing.assert_allclose(array(y), reference.depthwise(x, kernel), **TOLERANCE)
    np.testing.assert_allclose(for_x, expected_for_x, **TOLERANCE)
    np.testing.assert_allclose(for_kernel, expected_for_kernel, **TOLERANCE)


def test_the_reference_gradients_are_the_slopes_of_the_reference(rng):
    x, kernel, upstream = rng.normal(size=(2, 4, 3, 2)), rng.normal(size=(2, 5, 2, 1)), rng.normal(size=(2, 4, 3, 2))
    for_x, for_kernel = reference.depthwise_gradients(x, kernel, upstream)

    def loss(x, kernel):
        return np.sum(upstream * reference.depthwise(x, kernel))

    along_x, along_kernel = rng.normal(size=x.shape), rng.normal(size=kernel.shape)
    step = 1e-4
    slope_in_x = (loss(x + step * along_x, kernel) - loss(x - step * along_x, kernel)) / (2 * step)
    slope_in_kernel = (loss(x, kernel + step * along_kernel) - loss(x, kernel - step * along_kernel)) / (2 * step)
    np.testing.assert_allclose(np.sum(for_x * along_x), slope_in_x, rtol=1e-8)
    np.testing.assert_allclose(np.sum(for_kernel * along_kernel), slope_in_kernel, rtol=1e-8)


def test_formats_take_the_same_kernel(rng):
    x, kernel = rng.normal(size=SHAPE).astype("float32"), rng.normal(size=(1, 5, 3, 1)).astype("float32")
    kernel = keras.ops.convert_to_tensor(kernel)
    last = array(depthwise_conv(keras.ops.convert_to_tensor(x), kernel, "channels_last"))
    first = array(depthwise_conv(keras.ops.convert_to_tensor(transposed(x)), kernel, "channels_first"))
    np.testing.assert_allclose(first, transposed(last), **TOLERANCE)
