import keras
import numpy as np
import pytest
import reference
from agreement import array, assert_agrees, assert_equals_reference, both_formats, built, norm_of, run

from keras_mixers.layers import SpatialMixer1D, SpatialMixer2D

SHAPE = (2, 7, 6, 12)

OPTIONS = [
    {"activation": "relu"},
    {"activation": None},
    {"normalization": "layer"},
    {"normalization": None},
    {"residual": False},
]

kernel_sizes = pytest.mark.parametrize("kernel_size", [1, 3, 4, 5, 8])


def assert_1d_equals_reference(layer, x, randomize, **options):
    randomize(built(layer, x.shape))
    width, height = [
        (array(convolution.kernel), array(convolution.bias))
        for convolution in (layer.width_convolution, layer.height_convolution)
    ]
    norms = [norm_of(layer.width_norm), norm_of(layer.height_norm)]
    assert_agrees(
        layer,
        x,
        lambda training: reference.spatial_mixer_1d(x, width, height, norms, training=training, **options),
        [layer.width_norm, layer.height_norm],
    )


@both_formats
@kernel_sizes
def test_2d_equals_reference(kernel_size, data_format, rng, randomize):
    layer = SpatialMixer2D(kernel_size, data_format=data_format)
    assert_equals_reference(reference.spatial_mixer_2d, layer, rng.normal(size=SHAPE), randomize)


@both_formats
@kernel_sizes
def test_1d_equals_reference(kernel_size, data_format, rng, randomize):
    assert_1d_equals_reference(SpatialMixer1D(kernel_size, data_format=data_format), rng.normal(size=SHAPE), randomize)


@both_formats
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_2d_equals_reference_with_other_options(options, data_format, rng, randomize):
    layer = SpatialMixer2D(5, data_format=data_format, **options)
    assert_equals_reference(reference.spatial_mixer_2d, layer, rng.normal(size=SHAPE), randomize, **options)


@both_formats
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_1d_equals_reference_with_other_options(options, data_format, rng, randomize):
    layer = SpatialMixer1D(5, data_format=data_format, **options)
    assert_1d_equals_reference(layer, rng.normal(size=SHAPE), randomize, **options)


@both_formats
def test_2d_weights_have_the_same_shapes_in_both_formats(data_format):
    layer = built(SpatialMixer2D(5, data_format=data_format), (None, 7, 6, 12))
    assert layer.convolution.kernel.shape == (5, 5, 12, 1)
    assert layer.convolution.bias.shape == (12,)


@both_formats
def test_1d_weights_have_the_same_shapes_in_both_formats(data_format):
    layer = built(SpatialMixer1D(5, data_format=data_format), (None, 7, 6, 12))
    assert layer.width_convolution.kernel.shape == (1, 5, 12, 1)
    assert layer.height_convolution.kernel.shape == (5, 1, 12, 1)
    assert layer.width_convolution.bias.shape == layer.height_convolution.bias.shape == (12,)


@pytest.mark.parametrize(("kernel_size", "dim"), [(5, 256), (8, 12)])
def test_counts_of_parameters(kernel_size, dim):
    def count(layer):
        return sum(np.prod(weight.shape) for weight in built(layer, (None, 8, 8, dim)).trainable_weights)

    assert count(SpatialMixer2D(kernel_size)) == kernel_size**2 * dim + dim + 2 * dim
    assert count(SpatialMixer1D(kernel_size)) == 2 * (kernel_size * dim + dim + 2 * dim)


def test_1d_with_linear_parts_is_2d_with_the_outer_product_of_the_kernels(rng, randomize):
    options = {"activation": None, "normalization": None}
    one, two = [randomize(built(layer(4, **options), SHAPE)) for layer in (SpatialMixer1D, SpatialMixer2D)]
    one.width_convolution.bias.assign(
        np.zeros(12)
    )  # its zeros outside the image would not be zeros for the second kernel
    two.convolution.kernel.assign(array(one.height_convolution.kernel) * array(one.width_convolution.kernel))
    two.convolution.bias.assign(one.height_convolution.bias)
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(one, x), run(two, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [SpatialMixer1D(5, normalization=None), SpatialMixer2D(5, normalization=None)])
def test_a_change_reaches_the_kernel_around_it_in_its_own_channel_alone(layer, rng, randomize):
    randomize(built(layer, (None, 9, 11, 6)))
    x = rng.normal(size=(1, 9, 11, 6))
    other = x.copy()
    other[0, 4, 5, 3] += 1
    changed = run(layer, x) != run(layer, other)
    expected = np.zeros_like(changed)
    expected[0, 2:7, 3:8, 3] = True
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("layer", [SpatialMixer1D(3), SpatialMixer2D(4)])
def test_one_layer_takes_inputs_of_several_sizes(layer, rng, randomize):
    model = keras.Sequential([keras.Input((None, None, 12)), layer])
    randomize(model)
    for size in [(5, 6), (8, 3)]:
        x = rng.normal(size=(2, *size, 12)).astype("float32")
        assert model.predict(x, verbose=0).shape == x.shape
        np.testing.assert_allclose(model.predict(x, verbose=0), run(layer, x), rtol=1e-5, atol=1e-5)
