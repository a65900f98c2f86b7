"""Mixers of positions and channels by products: equal to NumPy, where they start, what they refuse."""

import functools

import keras
import numpy as np
import pytest
import reference
from agreement import (
    OTHER_OPTIONS,
    TOLERANCE,
    array,
    assert_agrees,
    both_formats,
    built,
    norm_of,
    run,
    transposed,
    weight_gradients,
)

from keras_mixers.layers import ChannelMLP, SpatialGatingMLP, TokenLinear, TokenMLP
from keras_mixers.layers.normalization import Affine

# As many positions as channels, and in some tests as many hidden units: whoever confuses them is found out.
SHAPE = (2, 4, 3, 12)
OPTIONS = [
    {},
    *OTHER_OPTIONS,
    {"normalization": "affine"},
    {"normalization": "batch"},
    {"residual": False},
    {"layer_scale": 0.1},
]
FIXED = {
    "TokenMLP": functools.partial(TokenMLP, 6),
    "TokenLinear": TokenLinear,
    "SpatialGatingMLP": functools.partial(SpatialGatingMLP, 6),
}

every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
with_a_fixed_grid = pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)


def weights_of(*products):
    return [(array(product.kernel), array(product.bias)) for product in products]


def assert_equals(function, layer, products, rng, randomize, norms=("norm",), **options):
    """Compare a layer of random weights with a function of the reference that takes these of its products and norms."""
    randomize(built(layer, SHAPE))
    scale = {} if layer.scale is None else {"scale": array(layer.scale)}
    options = {name: value for name, value in options.items() if name != "layer_scale"}
    products = weights_of(*(getattr(layer, name) for name in products))
    products = products[0] if len(products) == 1 else products
    norms = [getattr(layer, name) for name in norms]
    x = rng.normal(size=SHAPE)
    expected = functools.partial(function, x, *products, *map(norm_of, norms), **options, **scale)
    assert_agrees(layer, x, expected, norms)


@both_formats
@pytest.mark.parametrize("gated", [False, True])
@every_option
def test_token_mlp_equals_reference(options, gated, data_format, rng, randomize):
    layer = TokenMLP(12, gated=gated, data_format=data_format, **options)
    products = ("hidden_dense", "output_dense")
    assert_equals(reference.token_mlp, layer, products, rng, randomize, gated=gated, **options)


@both_formats
@pytest.mark.parametrize("gated", [False, True])
@every_option
def test_channel_mlp_equals_reference(options, gated, data_format, rng, randomize):
    layer = ChannelMLP(8, gated=gated, data_format=data_format, **options)
    products = ("hidden_dense", "output_dense")
    assert_equals(reference.channel_mlp, layer, products, rng, randomize, gated=gated, **options)


@both_formats
@every_option
def test_token_linear_equals_reference(options, data_format, rng, randomize):
    layer = TokenLinear(data_format=data_format, **options)
    assert_equals(reference.token_linear, layer, ("product",), rng, randomize, **options)


@both_formats
@every_option
def test_spatial_gating_mlp_equals_reference(options, data_format, rng, randomize):
    layer = SpatialGatingMLP(8, data_format=data_format, **options)
    products, norms = ("hidden_dense", "gate_dense", "output_dense"), ("norm", "gate_norm")
    assert_equals(reference.spatial_gating_mlp, layer, products, rng, randomize, norms=norms, **options)


def test_gates_of_gmixer_are_those_of_silu(rng, randomize):
    layer = ChannelMLP(8, gated=True, activation="silu")
    products = ("hidden_dense", "output_dense")
    assert_equals(reference.channel_mlp, layer, products, rng, randomize, gated=True, activation="silu")


# The affine norm


@both_formats
def test_affine_scales_and_shifts_each_channel(data_format, rng, randomize, tmp_path):
    layer = randomize(built(Affine(data_format=data_format, name="norm"), SHAPE))
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(layer, x), x * array(layer.gamma) + array(layer.beta), **TOLERANCE)
    image = keras.Input(SHAPE[1:] if data_format == "channels_last" else transposed(SHAPE)[1:])
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(run(again, x), run(layer, x))


def test_affine_starts_as_the_identity_and_learns(rng):
    layer, x, upstream = Affine(), rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(layer, x), np.asarray(x, "float32"))
    gamma, beta = weight_gradients(keras.Sequential([keras.Input(SHAPE[1:]), layer]), x, upstream)
    np.testing.assert_allclose(gamma, (x * upstream).sum((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(beta, upstream.sum((0, 1, 2)), rtol=1e-4, atol=1e-5)


# Initial values


@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_a_spatial_gate_starts_open(initializer):
    layer = built(SpatialGatingMLP(64, initializer=initializer), (None, 16, 16, 8))
    kernel = array(layer.gate_dense.kernel)
    assert kernel.shape == (256, 256)
    np.testing.assert_allclose(kernel.std(), 1e-6, rtol=0.05)
    assert abs(kernel.mean()) < 2e-8
    assert (array(layer.gate_dense.bias) == 1).all()
    assert layer.gate_norm.epsilon == 1e-5


@pytest.mark.parametrize("make", [functools.partial(TokenMLP, 128), functools.partial(ChannelMLP, 128)])
@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_gates_of_an_mlp_start_open(make, initializer):
    layer = built(make(gated=True, initializer=initializer), (None, 8, 8, 64))
    values, gates = np.split(array(layer.hidden_dense.kernel), 2, axis=1)
    np.testing.assert_allclose(gates.std(), 1e-6, rtol=0.1)
    assert (array(layer.hidden_dense.bias)[64:] == 1).all()
    bound = 64**-0.5 if initializer == "torch" else (6 / (64 + 128)) ** 0.5
    assert 0.95 * bound < np.abs(values).max() <= bound


def test_layer_scale_starts_as_its_argument_and_multiplies_the_branch(rng, randomize):
    scaled = built(ChannelMLP(8, layer_scale=1e-4), SHAPE)
    assert (array(scaled.scale) == np.float32(1e-4)).all()
    assert [weight.name for weight in scaled.weights].count("scale") == 1
    assert built(ChannelMLP(8), SHAPE).scale is None


# Grids


@both_formats
@with_a_fixed_grid
def test_mixes_all_positions_of_each_channel_alone(make, data_format, rng, randomize):
    layer = randomize(built(make(data_format=data_format, normalization=None), SHAPE))
    x = rng.normal(size=SHAPE)
    other = x.copy()
    other[:, 1, 2, 3] += 1
    changed = run(layer, x) != run(layer, other)
    assert changed[..., 3].all()
    if not isinstance(layer, SpatialGatingMLP):  # which mixes channels too
        assert changed.sum() == changed[..., 3].sum()


@both_formats
@with_a_fixed_grid
def test_refuses_a_grid_that_is_unknown(make, data_format):
    shape = (None, 3, 12) if data_format == "channels_last" else (12, 4, None)
    message = f"{getattr(make, 'func', make).__name__} mixes a fixed number of patches, .*give the network input_shape"
    with pytest.raises(ValueError, match=message) as refusal:
        make(data_format=data_format)(keras.Input(shape))
    assert "\n" not in str(refusal.value)


@both_formats
@pytest.mark.parametrize("sides", [(3, 4), (4, 4), (6, 2)])  # the second has more positions, the others as many
@with_a_fixed_grid
def test_refuses_another_grid(make, sides, data_format):
    layer = built(make(data_format=data_format, name="mixer"), SHAPE)
    x = np.zeros((1, *sides, 12), "float32")
    message = f"^'mixer' mixes the patches of a grid of 4 × 3, got {sides[0]} × {sides[1]}; resize the images"
    with pytest.raises(ValueError, match=message) as refusal:
        layer(transposed(x) if data_format == "channels_first" else x)
    assert "\n" not in str(refusal.value)


def test_channel_mlp_takes_any_grid(rng, randomize):
    layer = randomize(built(ChannelMLP(8), SHAPE))
    assert run(layer, rng.normal(size=(1, 7, 5, 12))).shape == (1, 7, 5, 12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenMLP(0), "hidden must be a whole number of at least 1, got hidden=0"),
        (lambda: ChannelMLP(2.5), "hidden must be a whole number of at least 1, got hidden=2.5"),
        (lambda: TokenMLP(7, gated=True), "hidden must be even where half of it are gates, got hidden=7"),
        (lambda: ChannelMLP(7, gated=True), "hidden must be even where half of it are gates, got hidden=7"),
        (lambda: SpatialGatingMLP(7), "hidden must be even, as one half gates the other, got hidden=7"),
        (lambda: SpatialGatingMLP(0), "hidden must be a whole number of at least 1, got hidden=0"),
        (lambda: TokenLinear(layer_scale=0), "layer_scale must be a positive number, got layer_scale=0"),
        (lambda: ChannelMLP(8, layer_scale=-1e-4), "layer_scale must be a positive number, got layer_scale=-0.0001"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
