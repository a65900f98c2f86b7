"""All implementations give the reference's values and gradients, on every backend; the default is the table's."""

import importlib
import re

import keras
import numpy as np
import pytest
import reference
from agreement import TOLERANCE, array, both_formats, gradients

from keras_mixers import backends, layers
from keras_mixers.backends import contract
from keras_mixers.layers.depthwise import IMPLEMENTATIONS, DepthwiseConvolution, depthwise_conv, within_reach

SHAPE = (2, 5, 4, 3)

KERNELS = [(1, 1), (1, 3), (1, 4), (3, 1), (4, 1), (3, 3), (4, 4), (2, 3)]
LARGER_THAN_THE_IMAGE = [(1, 9), (1, 14), (9, 1), (8, 1), (6, 5), (7, 7)]


@pytest.mark.parametrize("implementation", [None, *IMPLEMENTATIONS])
@both_formats
@pytest.mark.parametrize("kernel_size", KERNELS + LARGER_THAN_THE_IMAGE, ids=str)
def test_output_and_gradients_equal_the_reference(kernel_size, data_format, implementation, rng):
    x, kernel, upstream = rng.normal(size=SHAPE), rng.normal(size=(*kernel_size, SHAPE[-1], 1)), rng.normal(size=SHAPE)
    kernel /= np.sqrt(np.prod(kernel_size))
    there, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if data_format == "channels_first" else ((0, 1, 2, 3),) * 2

    def function(x, kernel):
        y = depthwise_conv(keras.ops.transpose(x, there), kernel, data_format, implementation=implementation)
        return keras.ops.transpose(y, back)

    y = function(keras.ops.convert_to_tensor(x, "float32"), keras.ops.convert_to_tensor(kernel, "float32"))
    for_x, for_kernel = gradients(function, upstream, x, kernel)

    expected_for_x, expected_for_kernel = reference.depthwise_gradients(x, kernel, upstream)
    np.testing.assert_allclose(array(y), reference.depthwise(x, kernel), **TOLERANCE)
    np.testing.assert_allclose(for_x, expected_for_x, **TOLERANCE)
    np.testing.assert_allclose(for_kernel, expected_for_kernel, **TOLERANCE)


@pytest.mark.parametrize(
    ("length", "side", "first", "last"),
    [(9, 4, 1, 7), (9, 5, 0, 8), (9, None, 0, 8), (9, 1, 4, 4), (8, 4, 0, 6), (8, 5, 0, 7), (8, 3, 1, 5), (2, 1, 0, 0)],
)
def test_a_kernel_is_cut_to_what_can_meet_the_map(length, side, first, last, rng):
    kernel = rng.normal(size=(length, length, 2, 1))
    cut = kernel[first : last + 1]
    np.testing.assert_array_equal(array(within_reach(kernel, (side, 100))), cut)
    np.testing.assert_array_equal(array(within_reach(kernel, (side, side))), cut[:, first : last + 1])


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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kernel_size", [(1, 5), (5, 1), (5, 5)], ids=str)
def test_bfloat16_is_float32_but_for_the_rounding_of_numbers(kernel_size, implementation, rng):
    """Inputs are rounded before, hence exact; outputs and gradients have 8 bits, and sums round at each term."""
    x, kernel, upstream = (
        array(keras.ops.cast(rng.normal(size=shape), "bfloat16")) for shape in (SHAPE, (*kernel_size, 3, 1), SHAPE)
    )

    def function(x, kernel):
        x, kernel = (keras.ops.cast(value, "bfloat16") for value in (x, kernel))
        return keras.ops.cast(depthwise_conv(x, kernel, "channels_last", implementation=implementation), "float32")

    y = array(function(x, kernel))
    found = [y, *gradients(function, upstream, x, kernel)]
    expected = [reference.depthwise(x, kernel), *reference.depthwise_gradients(x, kernel, upstream)]
    for value, exact in zip(found, expected, strict=True):
        assert np.abs(value - exact).max() <= 2**-6 * np.abs(exact).max()


PRODUCTS_FOR = {"tensorflow": ("bfloat16", "float32"), "torch": ("bfloat16",)}


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has one way")
@pytest.mark.parametrize("most", [0, 256], ids=["sums", "matrix_products"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kernel_size", [(1, 5), (5, 1), (2, 4), (3, 3), (5, 5), (9, 9)], ids=str)
def test_gradients_are_the_same_in_either_way(kernel_size, dtype, most, monkeypatch, rng):
    """Half precision rounds each of the sums of a matrix product, and the result."""
    backend = importlib.import_module(f"keras_mixers.backends.{keras.backend.backend()}")
    used, multiplied = [], contract.gradient_for_kernel
    monkeypatch.setattr(backend, "MOST_POSITIONS", most)
    monkeypatch.setattr(contract, "gradient_for_kernel", lambda *a: (used.append(a[2:4]), multiplied(*a))[1])
    shapes = SHAPE, (*kernel_size, 3, 1), (3,), SHAPE
    x, kernel, bias, upstream = (array(keras.ops.cast(rng.normal(size=shape), dtype)) for shape in shapes)

    def function(x, kernel, bias):
        x, kernel, bias = (keras.ops.cast(value, dtype) for value in (x, kernel, bias))
        return keras.ops.cast(depthwise_conv(x, kernel, "channels_last", bias), "float32")

    tolerance = {"bfloat16": 2**-6, "float16": 2**-9, "float32": 1e-5}[dtype]
    expected = *reference.depthwise_gradients(x, kernel, upstream), upstream.sum((0, 1, 2))
    for found, exact in zip(gradients(function, upstream, x, kernel, bias), expected, strict=True):
        assert np.abs(found - exact).max() <= tolerance * np.abs(exact).max()
    rows, columns = kernel_size
    expects_products = most and min(kernel_size) > 3 and dtype in PRODUCTS_FOR[keras.backend.backend()]
    assert used == ([(rows, min(columns, 7))] if expects_products else [])  # no more meet four columns


@pytest.mark.parametrize(
    ("size", "kernel_size", "band"),
    [((16, 16), (5, 5), 8), ((24, 32), (7, 7), 3), ((12, 48), (4, 6), 2), ((32, 32), (9, 9), 4), ((20, 4), (9, 5), 20)],
    ids=str,
)
def test_the_gradient_for_a_kernel_is_the_same_in_bands(size, kernel_size, band, rng):
    assert contract.band_height(*size, kernel_size[0]) == band
    x, upstream = (rng.normal(size=(2, *size, 3)) for _ in range(2))
    maps = (keras.ops.convert_to_tensor(np.moveaxis(value, -1, 0), "float32") for value in (x, upstream))
    found = contract.gradient_for_kernel(
        *maps, *kernel_size, lambda a, b: keras.ops.matmul(keras.ops.swapaxes(a, 1, 2), b)
    )
    _, expected = reference.depthwise_gradients(x, np.zeros((*kernel_size, 3, 1)), upstream)
    np.testing.assert_allclose(array(found), expected, rtol=1e-5, atol=1e-4)


def test_the_default_is_the_tables(monkeypatch, rng):
    x, kernel = (keras.ops.convert_to_tensor(rng.normal(size=shape), "float32") for shape in (SHAPE, (1, 5, 3, 1)))
    used = []
    for name, convolve in IMPLEMENTATIONS.items():
        monkeypatch.setitem(IMPLEMENTATIONS, name, lambda *a, n=name, f=convolve: (used.append(n), f(*a))[1])
    depthwise_conv(x, kernel, "channels_last")
    assert used == [backends.FASTEST_DEPTHWISE.get(backends.device(), "native")]
    for implementation in ("shifted", "native"):
        monkeypatch.setitem(backends.FASTEST_DEPTHWISE, backends.device(), implementation)
        depthwise_conv(x, kernel, "channels_last")
    assert used[1:] == ["shifted", "native"]


def test_the_implementation_is_an_argument_of_layers_and_part_of_their_config(rng):
    x = rng.normal(size=(1, 6, 5, 4)).astype("float32")
    for make in (layers.SpatialMixer1D, layers.SpatialMixer2D):
        native = make(3, implementation="native", data_format="channels_last")
        y = array(native(x))
        config = native.get_config()
        assert config["implementation"] == "native"
        shifted = make.from_config({**config, "implementation": "shifted"})
        shifted.build(x.shape)
        shifted.set_weights(native.get_weights())
        np.testing.assert_allclose(array(shifted(x)), y, **TOLERANCE)
        convolutions = [layer for layer in shifted._flatten_layers() if isinstance(layer, DepthwiseConvolution)]
        assert {convolution.implementation for convolution in convolutions} == {"shifted"}


def test_refuses_unknown_implementations():
    message = r"implementation must be one of None, 'native', 'shifted', got implementation='fft'"
    with pytest.raises(ValueError, match=message):
        depthwise_conv(np.zeros(SHAPE), np.zeros((1, 3, 3, 1)), "channels_last", implementation="fft")
    with pytest.raises(ValueError, match=message):
        layers.SpatialMixer2D(3, implementation="fft")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="what XLA makes of a network is asked of JAX")
@pytest.mark.parametrize("network", ["SplitMixerI", "ConvMixer"])
def test_xla_computes_no_gelu_once_for_each_number_of_a_kernel(network, monkeypatch):
    """A loop that holds both an erf and slices of what comes of it would compute it once for each slice."""
    import jax

    import keras_mixers
    from keras_mixers.backends.jax import _add_products

    def loops_with_both():
        model = keras_mixers.IsotropicMixer(
            8, 3, 2,
            spatial_mixer=lambda block, **shared: (
                layers.SpatialMixer1D if network == "SplitMixerI" else layers.SpatialMixer2D
            )(5, implementation="shifted", **shared),
            channel_mixer=lambda block, **shared: layers.ChannelMixer(**shared),
            data_format="channels_last",
        )  # fmt: skip
        values = [[v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)]
        images = np.zeros((2, 16, 16, 3), "float32")
        compiled = jax.jit(lambda *v: model.stateless_call(*v, images, training=False)[0]).lower(*values).compile()
        loops = re.split(r"\n(?=%|ENTRY)", compiled.as_text())
        assert any(" erf(" in loop for loop in loops)
        return [loop for loop in loops if " erf(" in loop and loop.count(" slice(") > 1]

    assert loops_with_both() == []
    monkeypatch.setattr("keras_mixers.backends.jax._sum_of_products", _add_products)
    assert loops_with_both() != []
