"""What holds for every layer: norms, gradients, initial values, configuration, files, precision, stochastic depth."""

import contextlib
import functools
import math

import keras
import numpy as np
import pytest
from agreement import TOLERANCE, array, both_formats, built, run, transposed, weight_gradients
from every_layer import (
    EACH_KIND,
    EVERY_LAYER,
    EVERY_MIXER,
    FIXED_GRID,
    SHAPE,
    for_each_kind,
    for_every_layer,
    for_every_mixer,
    input_shape,
    kind_of,
)

from keras_mixers import layers
from keras_mixers.layers.pre_norm_mixer import TokenDense


def copy_of(layer, **options):
    """Give a layer with some options changed and the same weights."""
    copy = type(layer).from_config(layer.get_config() | options)
    copy.build(layer.get_build_config()["input_shape"])
    copy.set_weights(layer.get_weights())
    return copy


def norms_of(layer):
    return [part for part in layer.parts if "norm" in part.name]


def difference(y, expected):
    """Give the norm of the difference, as a part of the norm of what is expected."""
    expected = array(expected)
    return np.linalg.norm(array(keras.ops.cast(y, "float32")) - expected) / np.linalg.norm(expected)


def test_every_public_layer_is_tested_here():
    public = {value for value in vars(layers).values() if isinstance(value, type)}
    public -= {layers.NormalizePixels}  # which has no weights, and tests of its own
    bases = (layers.PostNormLayer, layers.MixingLayer, layers.SpatialMixer, layers.PointwiseMixer, layers.PreNormMixer)
    public -= set(bases)
    tested = {kind_of(make) for make in EVERY_LAYER.values()}
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
@both_formats
def test_computed_shape_is_the_shape_of_the_output(make, data_format):
    def in_format(shape):
        return transposed(shape) if data_format == "channels_first" else shape

    layer = make(data_format=data_format)
    shape = layer.compute_output_shape(in_format(SHAPE))
    assert shape == layer(np.zeros(in_format(SHAPE), "float32")).shape
    channels = shape[1] if data_format == "channels_first" else shape[-1]
    unknown, expected = in_format((None, None, None, 12)), in_format((None, None, None, channels))
    assert layer.compute_output_shape(unknown) == expected
    if kind_of(make) not in FIXED_GRID:
        assert layer(keras.Input(unknown[1:])).shape == expected


# Norms


@for_every_layer
def test_norms_have_the_papers_constants(make):
    def norms(normalization):
        """Without the gate's, a layer norm of epsilon 1e-5 whatever the argument."""
        return [norm for norm in norms_of(built(make(normalization=normalization), SHAPE)) if norm.name != "gate_norm"]

    epsilon = 1e-6 if issubclass(kind_of(make), layers.PreNormMixer) else 1e-5
    for norm in norms("batch"):
        assert isinstance(norm, keras.layers.BatchNormalization)
        assert (norm.epsilon, norm.momentum) == (epsilon, 0.9)
    for norm in norms("layer"):
        assert isinstance(norm, keras.layers.LayerNormalization)
        assert norm.epsilon == epsilon
    assert norms("batch")
    assert norms(None) == []


# Gradients


@for_every_layer
def test_gradients_are_slopes_and_reach_every_number_of_every_weight(make, rng, randomize):
    layer = randomize(built(make(), SHAPE))
    x, upstream = rng.normal(size=SHAPE), rng.normal(size=layer.compute_output_shape(SHAPE))
    weights = layer.trainable_variables
    directions = [rng.normal(size=weight.shape) for weight in weights]
    gradients = weight_gradients(layer, x, upstream)
    assert weights
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient.shape == weight.shape, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert (gradient != 0).all(), weight.path

    values = [array(weight) for weight in weights]

    def loss(step):
        for weight, value, direction in zip(weights, values, directions, strict=True):
            weight.assign((value + step * direction).astype("float32"))
        return np.sum(upstream * run(layer, x, training=True))

    step = 1e-3
    slope = sum(np.sum(gradient * direction) for gradient, direction in zip(gradients, directions, strict=True))
    np.testing.assert_allclose((loss(step) - loss(-step)) / (2 * step), slope, rtol=1e-2, atol=2e-2)


# Initial values


INITIALIZED = {  # layer, channels that come in, and fan_in and fan_out of its kernels
    "patch_embed": (functools.partial(layers.PatchEmbed, 512, 4), 3, 48, 16 * 512),
    # Keras reads a depthwise kernel as one from all channels to one.
    "spatial_2d": (functools.partial(layers.SpatialMixer2D, 5), 1024, 25, None),
    "spatial_1d": (functools.partial(layers.SpatialMixer1D, 9), 2048, 9, None),
    "channel": (layers.ChannelMixer, 512, 512, 512),
    "split": (functools.partial(layers.ChannelSplitMixerIV, 2), 1024, 512, 512),
    "stride": (functools.partial(layers.ChannelStrideMixer, 64, stride=960), 1024, 64, 512),
}


def assert_uniform(weight, bound):
    """Of n uniform numbers, the standard deviation varies by 0.45 / sqrt(n) of itself, the mean by 0.58 b / sqrt(n)."""
    values = array(weight).ravel()
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.97 * bound
    np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=2 / math.sqrt(values.size))
    assert abs(values.mean()) < 3 * bound / math.sqrt(values.size)


@pytest.mark.parametrize(("make", "channels", "fan_in", "fan_out"), INITIALIZED.values(), ids=INITIALIZED)
@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_starts_as_in_pytorch_or_keras(make, channels, fan_in, fan_out, initializer):
    keras.utils.set_random_seed(1)
    layer = built(make(initializer=initializer), (None, 8, 8, channels))
    convolutions = [part for part in layer.parts if hasattr(part, "kernel")]
    assert convolutions
    for part in convolutions:
        if initializer == "torch":
            assert_uniform(part.kernel, fan_in**-0.5)
            assert_uniform(part.bias, fan_in**-0.5)
        else:
            fans = fan_in + fan_out if fan_out else fan_in * channels + fan_in
            assert_uniform(part.kernel, math.sqrt(6 / fans))
            assert (array(part.bias) == 0).all()


@for_every_layer
@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_no_two_kernels_start_alike_and_norms_start_neutral(make, initializer):
    layer = built(make(initializer=initializer), SHAPE)
    kernels = [array(weight).ravel() for weight in layer.weights if weight.name == "kernel"]
    assert len({tuple(kernel[:4]) for kernel in kernels}) == len(kernels) >= 1
    starts = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    for norm in norms_of(layer):
        for weight in norm.weights:
            assert (array(weight) == starts[weight.name]).all()


# Configuration and files


@for_every_layer
@both_formats
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
        if isinstance(part, TokenDense):  # of positions, in each of 5 channels
            x = rng.normal(size=(2, channels, 5)).astype("float32")
        np.testing.assert_array_equal(array(again(x)), array(part(x)), err_msg=part.name)


@for_every_layer
def test_config_holds_every_argument(make):
    own = getattr(make, "keywords", {})
    changed = {"activation": "relu", "normalization": None, "initializer": "keras", "data_format": "channels_first"}
    if make in EVERY_MIXER.values():
        changed |= {"residual": True, "drop_path_rate": 0.25}
    config = make(**changed, name="some_layer", dtype="mixed_bfloat16").get_config()
    assert keras.dtype_policies.get(config["dtype"]).name == "mixed_bfloat16"
    for name, value in {**changed, **own, "name": "some_layer"}.items():
        assert config[name] == value, name


@for_every_layer
def test_activation_may_be_a_function(make, rng, randomize):
    layer = randomize(built(make(activation=keras.activations.silu), SHAPE))
    x = rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(layer, x), run(copy_of(layer, activation="silu"), x))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@for_every_layer
@pytest.mark.parametrize(
    "options", [{}, {"activation": "relu", "normalization": "layer", "data_format": "channels_first"}], ids=str
)
def test_file_gives_the_same_layer_and_outputs(make, options, rng, randomize, tmp_path):
    layer, shape = make(**options, name="some_layer"), input_shape(make)
    x = keras.Input(transposed((None, *shape))[1:] if options else shape)
    model = randomize(keras.Model(x, layer(x)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=transposed(SHAPE) if options else SHAPE).astype("float32")
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[-1].get_config() == layer.get_config()


# Precision

MIXED = {"float16": 4e-3, "bfloat16": 2e-2}  # the differences allowed


@for_each_kind
@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ("mixed_float16", MIXED["float16"]),
        ("mixed_bfloat16", MIXED["bfloat16"]),
        ("float64", 1e-6),
        ("float16", 4e-3),
        ("bfloat16", 3e-2),
    ],
)
def test_other_precisions_are_close_to_float32(make, policy, bound, rng, randomize):
    full = randomize(built(make(), SHAPE))
    other = built(make(dtype=policy), SHAPE)
    (dtype,) = {keras.backend.standardize_dtype(weight.value.dtype) for weight in other.weights}
    if policy.startswith("mixed"):
        assert dtype == "float32"
        dtype = policy.removeprefix("mixed_")
    elif dtype != policy:
        assert (keras.backend.backend(), policy) == ("jax", "float64")  # JAX has none unless it is asked for
    for weight, value in zip(other.weights, full.get_weights(), strict=True):
        weight.assign(keras.ops.cast(value, weight.dtype))
    x = rng.normal(size=SHAPE).astype("float32")
    for training in (False, True):
        y = other(x, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        assert difference(y, full(x, training=training)) < bound


@for_each_kind
@both_formats
def test_gradients_in_mixed_precision_are_summed_in_float32(data_format, make, rng, randomize):
    """9,216 positions: in bfloat16 a sum stops growing at 256 times its summands, and was off by all of its size."""
    full = randomize(built(make(data_format=data_format), SHAPE))
    shape = (128, *SHAPE[1:])
    shape = transposed(shape) if data_format == "channels_first" else shape
    x, upstream = rng.normal(size=shape), rng.normal(0.5, 1, size=full.compute_output_shape(shape))
    mixed = copy_of(full, dtype="mixed_bfloat16")
    found, expected = (weight_gradients(layer, x, upstream) for layer in (mixed, full))
    for weight, gradient, exact in zip(full.trainable_variables, found, expected, strict=True):
        assert difference(gradient, exact) < 0.1, weight.path


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
@pytest.mark.parametrize("dtype", MIXED)
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch records gradients or does not")
def test_mixed_precision_without_gradients_is_close_to_that_with(make, dtype, rng, randomize):
    import torch

    layer = randomize(built(make(dtype=f"mixed_{dtype}"), SHAPE))
    x = rng.normal(size=SHAPE).astype("float32")
    expected = layer(x, training=False).detach().float()
    with torch.no_grad():
        y = layer(x, training=False)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert difference(y, expected) < MIXED[dtype]


# Compiled


def test_compiled_prediction_and_training_step(rng, randomize):
    inputs = [keras.Input(shape) for shape in dict.fromkeys(map(input_shape, EACH_KIND.values()))]
    of_shape = {x.shape[1:]: x for x in inputs}
    made = [make(name=name) for name, make in EACH_KIND.items()]
    outputs = [layer(of_shape[input_shape(make)]) for layer, make in zip(made, EACH_KIND.values(), strict=True)]
    model = randomize(keras.Model(inputs, outputs))
    x = [rng.normal(size=SHAPE).astype("float32")] * len(inputs)
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
    with_input = randomize(built(make(residual=True), SHAPE))
    without = copy_of(with_input, residual=False)
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(with_input, x, training), run(without, x, training) + x, **TOLERANCE)


@for_every_mixer
def test_drop_path_does_nothing_in_inference(make, rng, randomize):
    layer = randomize(built(make(residual=True), SHAPE))
    x = rng.normal(size=SHAPE)
    np.testing.assert_array_equal(run(copy_of(layer, drop_path_rate=0.5), x), run(layer, x))


@pytest.mark.parametrize("make", [EVERY_MIXER["channel"], EVERY_MIXER["spatial_1d"]], ids=["channel", "spatial_1d"])
@both_formats
def test_drop_path_drops_or_scales_the_branch_of_each_sample(make, data_format, rng, randomize):
    keras.utils.set_random_seed(1)
    samples, rate = 256, 0.25
    x = rng.normal(size=(samples, 2, 3, 12)).astype("float32")
    layer = randomize(built(make(residual=True, data_format=data_format), x.shape))
    dropping = copy_of(layer, drop_path_rate=rate)
    branch = run(layer, x, training=True) - x
    y = run(dropping, x, training=True)

    dropped = (y == x).all(axis=(1, 2, 3))
    np.testing.assert_allclose(y[~dropped], (x + branch / (1 - rate))[~dropped], **TOLERANCE)
    assert abs(dropped.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / samples)
    again = (run(dropping, x, training=True) == x).all(axis=(1, 2, 3))
    assert (dropped != again).any()


def test_drop_path_draws_anew_in_each_compiled_step(rng):
    layer = layers.ChannelMixer(residual=True, drop_path_rate=0.5)
    x = keras.Input((1, 1, 12))
    model = keras.Model(x, layer(x))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    layer.norm.trainable = False
    x = rng.normal(size=(16, 1, 1, 12)).astype("float32")
    losses = [float(model.train_on_batch(x, x)) for _ in range(4)]  # the mean over the branches that were kept
    assert len(set(losses)) > 1
