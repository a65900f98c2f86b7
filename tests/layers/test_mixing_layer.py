"""What holds for every layer: norms, gradients, initial values, configuration, files, precision, stochastic depth."""

import contextlib
import functools
import math

import keras
import numpy as np
import pytest
from agreement import TOLERANCE, array, built, run, transposed, weight_gradients
from every_layer import (
    EACH_KIND,
    EVERY_LAYER,
    EVERY_MIXER,
    SHAPE,
    for_each_kind,
    for_every_layer,
    for_every_mixer,
)

from keras_mixers import layers


def copy_of(layer, **options):
    """Give a layer with some options changed and the same weights."""
    copy = type(layer).from_config(layer.get_config() | options)
    copy.build(layer.get_build_config()["input_shape"])
    copy.set_weights(layer.get_weights())
    return copy


def norms_of(layer):
    norms = [getattr(layer, name, None) for name in ("norm", "width_norm", "height_norm")]
    return [norm for norm in norms if norm is not None]


def test_every_public_layer_is_tested_here():
    public = {value for value in vars(layers).values() if isinstance(value, type)}
    public -= {layers.NormalizePixels}  # which has no weights, and tests of its own
    public -= {layers.PostNormLayer, layers.MixingLayer, layers.SpatialMixer, layers.PointwiseMixer}  # bases
    tested = {getattr(make, "func", make) for make in EVERY_LAYER.values()}
    assert public == tested


# Formats and shapes


@for_every_layer
def test_transposed_input_gives_transposed_output(make, rng, randomize):
    last = randomize(built(make(data_format="channels_last"), SHAPE))
    first = built(make(data_format="channels_first"), SHAPE)
    first.set_weights(last.get_weights())
    x = rng.normal(size=SHAPE).astype("float32")
    for training in (False, True):
        y = array(last(x, training=training))
        np.testing.assert_allclose(array(first(transposed(x), training=training)), transposed(y), **TOLERANCE)


@for_every_layer
def test_data_format_defaults_to_that_of_keras(make):
    before = keras.config.image_data_format()
    try:
        for data_format in ("channels_first", "channels_last"):
            keras.config.set_image_data_format(data_format)
            assert make().data_format == data_format
    finally:
        keras.config.set_image_data_format(before)


@for_every_layer
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_computed_shape_is_the_shape_of_the_output(make, data_format):
    def in_format(shape):
        return transposed(shape) if data_format == "channels_first" else shape

    layer = make(data_format=data_format)
    shape = layer.compute_output_shape(in_format(SHAPE))
    assert shape == layer(np.zeros(in_format(SHAPE), "float32")).shape
    channels = shape[1] if data_format == "channels_first" else shape[-1]
    unknown, expected = in_format((None, None, None, 12)), in_format((None, None, None, channels))
    assert layer.compute_output_shape(unknown) == expected
    assert layer(keras.Input(unknown[1:])).shape == expected


# Norms


@for_every_layer
def test_norms_have_the_papers_constants(make):
    for norm in norms_of(built(make(normalization="batch"), SHAPE)):
        assert isinstance(norm, keras.layers.BatchNormalization)
        assert (norm.epsilon, norm.momentum) == (1e-5, 0.9)
    for norm in norms_of(built(make(normalization="layer"), SHAPE)):
        assert isinstance(norm, keras.layers.LayerNormalization)
        assert norm.epsilon == 1e-5
    assert norms_of(built(make(normalization="batch"), SHAPE))
    assert norms_of(built(make(normalization=None), SHAPE)) == []


# Gradients


@for_every_layer
def test_every_number_of_every_weight_gets_a_gradient(make, rng, randomize):
    layer = randomize(built(make(), SHAPE))
    x = rng.normal(size=SHAPE)
    gradients = weight_gradients(layer, x, rng.normal(size=layer.compute_output_shape(SHAPE)))
    assert len(gradients) == len(layer.trainable_variables) > 0
    for weight, gradient in zip(layer.trainable_variables, gradients, strict=True):
        assert gradient.shape == weight.shape, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert (gradient != 0).all(), weight.path


@for_every_layer
def test_gradients_are_slopes(make, rng, randomize):
    layer = randomize(built(make(), SHAPE))
    x, upstream = rng.normal(size=SHAPE), rng.normal(size=layer.compute_output_shape(SHAPE))
    weights = layer.trainable_variables
    directions = [rng.normal(size=weight.shape) for weight in weights]
    slope = sum(
        np.sum(gradient * direction)
        for gradient, direction in zip(weight_gradients(layer, x, upstream), directions, strict=True)
    )
    values = [array(weight) for weight in weights]

    def loss(step):
        for weight, value, direction in zip(weights, values, directions, strict=True):
            weight.assign((value + step * direction).astype("float32"))
        return np.sum(upstream * run(layer, x, training=True))

    step = 1e-3
    np.testing.assert_allclose((loss(step) - loss(-step)) / (2 * step), slope, rtol=1e-2, atol=2e-2)


# Initial values


INITIALIZED = {  # layer, input shape, and (weights, fan_in, fan_out) of each pair of kernel and bias
    "patch_embed": (lambda **o: layers.PatchEmbed(512, 4, **o), 3, ["convolution"], 48, 16 * 512),
    "spatial_2d": (lambda **o: layers.SpatialMixer2D(5, **o), 1024, ["convolution"], 25, None),
    "spatial_1d": (
        lambda **o: layers.SpatialMixer1D(9, **o),
        2048,
        ["width_convolution", "height_convolution"],
        9,
        None,
    ),
    "channel": (lambda **o: layers.ChannelMixer(**o), 512, ["pointwise"], 512, 512),
    "split": (lambda **o: layers.ChannelSplitMixerIV(2, **o), 1024, ["pointwise"], 512, 512),
    "stride": (lambda **o: layers.ChannelStrideMixer(64, stride=960, **o), 1024, ["pointwise"], 64, 512),
}

initialized = pytest.mark.parametrize(
    ("make", "channels", "names", "fan_in", "fan_out"), INITIALIZED.values(), ids=INITIALIZED
)


def parts_of(layer, names):
    """Give the sublayers that hold a kernel and a bias."""
    parts = []
    for name in names:
        part = getattr(layer, name)
        parts += part if isinstance(part, list | tuple) else [part]
    return parts


def assert_uniform(weight, bound):
    """Of n uniform numbers, the standard deviation varies by 0.45 / sqrt(n) of itself, the mean by 0.58 b / sqrt(n)."""
    values = array(weight).ravel()
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.97 * bound
    np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=2 / math.sqrt(values.size))
    assert abs(values.mean()) < 3 * bound / math.sqrt(values.size)


@initialized
def test_starts_as_in_pytorch(make, channels, names, fan_in, fan_out):
    keras.utils.set_random_seed(1)
    layer = built(make(), (None, 8, 8, channels))
    for part in parts_of(layer, names):
        assert_uniform(part.kernel, fan_in**-0.5)
        assert_uniform(part.bias, fan_in**-0.5)


@initialized
def test_starts_as_in_keras(make, channels, names, fan_in, fan_out):
    keras.utils.set_random_seed(1)
    layer = built(make(initializer="keras"), (None, 8, 8, channels))
    if fan_out is None:  # Keras reads a depthwise kernel as one from all channels to one
        fan_in, fan_out = fan_in * channels, fan_in
    for part in parts_of(layer, names):
        assert_uniform(part.kernel, math.sqrt(6 / (fan_in + fan_out)))
        assert (array(part.bias) == 0).all()


@for_every_layer
@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_no_two_kernels_start_alike_and_norms_start_neutral(make, initializer):
    layer = built(make(initializer=initializer), SHAPE)
    kernels = [array(weight).ravel() for weight in layer.weights if weight.name == "kernel"]
    assert len(kernels) >= 1
    firsts = [kernel[:4].tolist() for kernel in kernels]
    assert len({tuple(first) for first in firsts}) == len(kernels)
    starts = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    for norm in norms_of(layer):
        for weight in norm.weights:
            assert (array(weight) == starts[weight.name]).all()


# Configuration and files


@for_every_layer
def test_config_gives_the_same_layer(make, rng, randomize):
    layer = randomize(built(make(activation="relu", normalization="layer", name="some_layer"), SHAPE))
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    again.build(SHAPE)
    again.set_weights(layer.get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(again, x), run(layer, x))


@for_every_layer
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_config_gives_the_same_part_of_a_layer(make, data_format, rng, randomize):
    shape = SHAPE if data_format == "channels_last" else transposed(SHAPE)
    layer = randomize(built(make(data_format=data_format), shape))
    parts = [part for part in layer._flatten_layers(include_self=False, recursive=False) if part.weights]
    assert parts
    for part in parts:
        again = type(part).from_config(part.get_config())
        assert again.get_config() == part.get_config()
        again.build_from_config(part.get_build_config())
        again.set_weights(part.get_weights())
        first = part.get_weights()[0].shape  # of a norm (channels,), of a kernel (..., channels, outputs)
        channels = first[0] if len(first) == 1 else first[-2]
        axis = -1 if data_format == "channels_last" else 1
        x = np.moveaxis(rng.normal(size=(2, 5, 4, channels)), -1, axis).astype("float32")
        np.testing.assert_array_equal(array(again(x)), array(part(x)), err_msg=part.name)


@for_every_layer
def test_config_holds_every_argument(make):
    changed = {"activation": "relu", "normalization": None, "initializer": "keras", "data_format": "channels_first"}
    if make not in (EVERY_LAYER["patch_embed"], EVERY_LAYER["patch_embed_overlap"]):
        changed |= {"residual": True, "drop_path_rate": 0.25}
    given = changed | getattr(make, "keywords", {}) | {"name": "some_layer", "dtype": "mixed_bfloat16"}
    config = make(
        **{name: value for name, value in given.items() if name not in getattr(make, "keywords", {})}
    ).get_config()
    for name, value in given.items():
        if name == "dtype":
            assert keras.dtype_policies.get(config["dtype"]).name == value
        else:
            assert config[name] == value, name


@for_every_layer
def test_activation_may_be_a_function(make, rng, randomize):
    layer = randomize(built(make(activation=keras.activations.silu), SHAPE))
    named = make(activation="silu")
    named.build(SHAPE)
    named.set_weights(layer.get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(layer, x), run(named, x))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@for_every_layer
@pytest.mark.parametrize("options", [{}, {"normalization": "layer", "data_format": "channels_first"}], ids=str)
def test_file_gives_the_same_outputs(make, options, rng, randomize, tmp_path):
    layer = make(**options)
    shape = transposed(SHAPE) if options else SHAPE
    x = keras.Input((None, None, 12) if not options else (12, None, None))
    model = randomize(keras.Model(x, layer(x)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=shape).astype("float32")
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[-1].get_config() == layer.get_config()


# Precision


@for_each_kind
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_is_close_to_full(make, dtype, rng, randomize):
    full = randomize(built(make(), SHAPE))
    mixed = built(make(dtype=f"mixed_{dtype}"), SHAPE)
    mixed.set_weights(full.get_weights())
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in mixed.weights} == {"float32"}
    x = rng.normal(size=SHAPE).astype("float32")
    for training in (False, True):
        y = mixed(x, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        expected = array(full(x, training=training))
        difference = np.linalg.norm(array(keras.ops.cast(y, "float32")) - expected) / np.linalg.norm(expected)
        assert difference < {"float16": 4e-3, "bfloat16": 2e-2}[dtype]


@for_each_kind
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-6), ("float16", 4e-3), ("bfloat16", 3e-2)])
def test_weights_may_have_any_precision(make, dtype, bound, rng, randomize):
    full = randomize(built(make(), SHAPE))
    other = built(make(dtype=dtype), SHAPE)
    for weight, value in zip(other.weights, full.get_weights(), strict=True):
        weight.assign(keras.ops.cast(value, dtype))
    x = rng.normal(size=SHAPE).astype("float32")
    for training in (False, True):
        y = other(keras.ops.cast(x, dtype), training=training)
        assert keras.backend.standardize_dtype(y.dtype) == keras.backend.standardize_dtype(other.weights[0].value.dtype)
        expected = array(full(x, training=training))
        difference = np.linalg.norm(array(keras.ops.cast(y, "float32")) - expected) / np.linalg.norm(expected)
        assert difference < bound


@for_every_layer
def test_leaves_its_input_as_it_is(make, rng, randomize):
    """Activations are computed in place where that is allowed, which must never reach what the caller holds."""
    layer = randomize(built(make(), SHAPE))
    scope = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        import torch

        scope = torch.no_grad()
    x = keras.ops.convert_to_tensor(rng.normal(size=SHAPE), "float32")
    before = array(x).copy()
    with scope:
        first, second = array(layer(x, training=False)).copy(), array(layer(x, training=False))
    np.testing.assert_array_equal(array(x), before)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, array(layer(x, training=False)), **TOLERANCE)  # gradients are recorded


@for_every_layer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch records gradients or does not")
def test_mixed_precision_without_gradients_is_close_to_that_with(make, dtype, rng, randomize):
    import torch

    layer = randomize(built(make(dtype=f"mixed_{dtype}"), SHAPE))
    x = rng.normal(size=SHAPE).astype("float32")
    expected = array(layer(x, training=False).detach().float())
    with torch.no_grad():
        y = layer(x, training=False)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    difference = np.linalg.norm(array(y.float()) - expected) / np.linalg.norm(expected)
    assert difference < {"float16": 4e-3, "bfloat16": 2e-2}[dtype]


# Compiled


def test_compiled_prediction_and_training_step(rng, randomize):
    x = keras.Input((None, None, 12))
    made = [make(name=name) for name, make in EACH_KIND.items()]
    model = randomize(keras.Model(x, [layer(x) for layer in made]))
    x = rng.normal(size=SHAPE).astype("float32")
    eager = [array(y) for y in model(x)]
    for layer, y, compiled in zip(made, eager, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(compiled, y, **TOLERANCE, err_msg=layer.name)

    targets = [np.zeros(y.shape, "float32") for y in eager]
    before = [array(weight) for weight in model.weights]
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=["mse"] * len(made))
    model.train_on_batch(x, targets)
    for weight, old in zip(model.weights, before, strict=True):
        assert (array(weight) != old).any(), weight.path
        assert np.isfinite(array(weight)).all(), weight.path


# Residual and stochastic depth


@for_every_mixer
@pytest.mark.parametrize("training", [False, True])
def test_residual_adds_the_input(make, training, rng, randomize):
    with_input, without = [built(make(residual=residual), SHAPE) for residual in (True, False)]
    randomize(with_input)
    without.set_weights(with_input.get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(with_input, x, training), run(without, x, training) + x, **TOLERANCE)


@for_every_mixer
def test_drop_path_does_nothing_in_inference(make, rng, randomize):
    layer = randomize(built(make(residual=True), SHAPE))
    x = rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(copy_of(layer, drop_path_rate=0.5), x), run(layer, x))


@pytest.mark.parametrize("make", [EVERY_MIXER["channel"], EVERY_MIXER["spatial_1d"]], ids=["channel", "spatial_1d"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_drop_path_drops_or_scales_the_branch_of_each_sample(make, data_format, rng, randomize):
    keras.utils.set_random_seed(1)
    samples, rate = 256, 0.25
    x = rng.normal(size=(samples, 2, 3, 12)).astype("float32")
    layer = randomize(built(make(residual=True, data_format=data_format), x.shape))
    branch = run(layer, x, training=True) - x
    dropping = built(make(residual=True, data_format=data_format, drop_path_rate=rate), x.shape)
    dropping.set_weights(layer.get_weights())
    y = run(dropping, x, training=True)

    dropped = (y == x).all(axis=(1, 2, 3))
    np.testing.assert_allclose(y[~dropped], (x + branch / (1 - rate))[~dropped], **TOLERANCE)
    assert abs(dropped.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / samples)
    again = (run(dropping, x, training=True) == x).all(axis=(1, 2, 3))
    assert (dropped != again).any()


def test_drop_path_draws_anew_in_each_compiled_step(rng):
    layer = functools.partial(EVERY_MIXER["channel"], residual=True, drop_path_rate=0.5)()
    x = keras.Input((1, 1, 12))
    model = keras.Model(x, layer(x))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    layer.norm.trainable = False
    x = rng.normal(size=(16, 1, 1, 12)).astype("float32")
    losses = [float(model.train_on_batch(x, x)) for _ in range(4)]  # the mean over the branches that were kept
    assert len(set(losses)) > 1
