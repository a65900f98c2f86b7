import functools

import keras
import numpy as np
import pytest
import reference
from agreement import OTHER_OPTIONS, array, assert_agrees, assert_equals_reference, both_formats, built, norm_of, run

from keras_mixers.layers import SpatialMixer1D, SpatialMixer2D

SHAPE = (2, 7, 6, 12)

every_case = pytest.mark.parametrize(
    ("kernel_size", "options"),
    [*((k, {}) for k in (1, 3, 4, 5, 8)), *((5, options) for options in [*OTHER_OPTIONS, {"residual": False}])],
    ids=str,
)


@both_formats
@every_case
def test_2d_equals_reference(kernel_size, options, data_format, rng, randomize):
    layer = SpatialMixer2D(kernel_size, data_format=data_format, **options)
    assert_equals_reference(reference.spatial_mixer_2d, layer, rng.normal(size=SHAPE), randomize, **options)


@both_formats
@every_case
def test_1d_equals_reference(kernel_size, options, data_format, rng, randomize):
    layer, x = SpatialMixer1D(kernel_size, data_format=data_format, **options), rng.normal(size=SHAPE)
    randomize(built(layer, SHAPE))
    convolutions, norms = [layer.width_convolution, layer.height_convolution], [layer.width_norm, layer.height_norm]
    width, height = [(array(convolution.kernel), array(convolution.bias)) for convolution in convolutions]
    weights = width, height, [norm_of(norm) for norm in norms]
    assert_agrees(layer, x, functools.partial(reference.spatial_mixer_1d, x, *weights, **options), norms)


@pytest.mark.parametrize(("kernel_size", "dim"), [(5, 256), (8, 12)])
def test_counts_of_parameters(kernel_size, dim):
    def count(layer):
        return sum(np.prod(weight.shape) for weight in built(layer, (None, 8, 8, dim)).trainable_weights)

    assert count(SpatialMixer2D(kernel_size)) == kernel_size**2 * dim + dim + 2 * dim
    assert count(SpatialMixer1D(kernel_size)) == 2 * (kernel_size * dim + dim + 2 * dim)


def test_1d_with_linear_parts_is_2d_with_the_outer_product_of_the_kernels(rng, randomize):
    options = {"activation": None, "normalization": None}
    one, two = [randomize(built(layer(4, **options), SHAPE)) for layer in (SpatialMixer1D, SpatialMixer2D)]
    # Its zeros outside the image would not be zeros for the second kernel.
    one.width_convolution.bias.assign(np.zeros(12))
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
