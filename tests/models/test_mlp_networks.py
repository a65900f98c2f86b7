"""MLP-Mixer, gMixer, ResMLP and gMLP: what their builders make, and what they refuse."""

import math

import keras
import numpy as np
import pytest
from small_networks import MLP_BUILDERS, arguments_of, for_every_mlp_builder, small

import keras_mixers
from keras_mixers import layers
from keras_mixers.layers.normalization import Affine

WITHOUT_SPATIAL = ("gMLP",)


def output(model, x, training=False):
    return keras.ops.convert_to_numpy(model(x, training=training))


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 8, 10, 3)).astype("float32")


@for_every_mlp_builder
def test_is_a_line_of_layers(builder):
    kinds = ("channel",) if builder in WITHOUT_SPATIAL else ("spatial", "channel")
    blocks = [f"block_{i}_{kind}" for i in range(2) for kind in kinds]
    model = small(builder)
    assert [layer.name for layer in model.layers] == ["image", "patch_embed", *blocks, "norm", "pool", "head"]
    assert [[layer.name for layer in block] for block in model.blocks] == [
        [f"block_{i}_{kind}" for kind in kinds] for i in range(2)
    ]
    assert model.norm is model.get_layer("norm")
    embedding = model.get_layer("patch_embed")
    assert (embedding.activation, embedding.norm) == (keras.activations.linear, None)
    assert all(layer.residual for block in model.blocks for layer in block)
    assert keras_mixers.ConvMixer(8, 1).norm is None


def test_norms_activations_and_scales_are_the_papers():
    of = {builder: small(builder) for builder in MLP_BUILDERS}
    for builder, model in of.items():
        norms = [layer.norm for block in model.blocks for layer in block] + [model.norm]
        if builder == "ResMLP":
            assert all(isinstance(norm, Affine) for norm in norms)
        else:
            assert all(isinstance(norm, keras.layers.LayerNormalization) and norm.epsilon == 1e-6 for norm in norms)
        activation = keras.activations.silu if builder == "gMixer" else keras.activations.gelu
        assert all(block[-1].activation is activation for block in model.blocks)
    assert all(layer.gated for block in of["gMixer"].blocks for layer in block)
    assert not any(layer.gated for block in of["MLPMixer"].blocks for layer in block)
    assert all(layer.layer_scale == 1e-4 for block in of["ResMLP"].blocks for layer in block)
    assert of["MLPMixer"].blocks[0][0].layer_scale is None


@pytest.mark.parametrize(("blocks", "start"), [(12, 1e-4), (18, 1e-4), (19, 1e-5), (24, 1e-5), (25, 1e-6), (36, 1e-6)])
def test_deeper_resmlps_start_with_smaller_scales(blocks, start):
    model = keras_mixers.ResMLP(8, blocks, 4, 5, image_size=8)
    assert {layer.layer_scale for block in model.blocks for layer in block} == {start}
    assert keras_mixers.ResMLP(8, 24, 4, 5, layer_scale=0.1, image_size=8).blocks[0][0].layer_scale == 0.1


def test_hidden_units_are_multiples_of_the_channels():
    def hidden(model):
        return [layer.hidden for layer in model.blocks[0]]

    assert hidden(keras_mixers.MLPMixer(32, 1)) == [16, 128]
    assert hidden(keras_mixers.MLPMixer(32, 1, token_ratio=0.3, channel_ratio=2.5)) == [9, 80]
    assert hidden(keras_mixers.gMixer(32, 1)) == [32, 128]
    assert keras_mixers.ResMLP(32, 1).blocks[0][1].hidden == 128
    assert hidden(keras_mixers.gMLP(32, 1)) == [192]


@for_every_mlp_builder
def test_takes_the_size_that_it_is_built_for(builder, images):
    build = getattr(keras_mixers, builder)
    assert build(8, 1).input_shape[1:] in ((224, 224, 3), (3, 224, 224))
    assert build(8, 1, image_size=32, data_format="channels_first").input_shape == (None, 3, 32, 32)
    model = build(8, 1, 4, 5, input_shape=(12, 20, 1), data_format="channels_last")
    assert model.block_names[0][-1] == "block_0_channel"
    assert model.get_layer("patch_embed").output.shape == (None, 3, 5, 8)
    model = small(builder)
    assert output(model, images).shape == (2, 5)
    with pytest.raises(ValueError, match=r"expected shape=\(None, 8, 10, 3\), found shape=\(2, 10, 8, 3\)"):
        model(np.zeros((2, 10, 8, 3), "float32"))


@for_every_mlp_builder
def test_without_the_top_gives_normalised_features(builder, images, randomize):
    model = randomize(small(builder))
    features = small(builder, include_top=False)
    assert features.get_layer("norm") is features.layers[-1]
    features.set_weights(model.get_weights()[:-2])
    found = output(features, images)
    assert found.shape == (2, 4, 5, 12)
    head = model.get_layer("head")
    expected = found.mean((1, 2)) @ keras.ops.convert_to_numpy(head.kernel) + keras.ops.convert_to_numpy(head.bias)
    np.testing.assert_allclose(output(model, images), expected, rtol=1e-4, atol=1e-5)


@for_every_mlp_builder
def test_options_of_every_builder(builder, images):
    model = small(builder, drop_path_rate=0.2, dropout_rate=0.5, name="mine", activation="relu")
    assert model.name == "mine"
    assert [block[-1].drop_path_rate for block in model.blocks] == [0, 0.2]
    assert model.blocks[0][-1].activation is keras.activations.relu
    np.testing.assert_array_equal(output(model, images), output(model, images))
    assert np.abs(output(model, images, training=True) - output(model, images, training=True)).max() > 0
    batch = small(builder, normalization="batch", final_normalization=None, initializer="torch")
    assert isinstance(batch.blocks[0][-1].norm, keras.layers.BatchNormalization)
    assert batch.norm is None
    assert isinstance(small(builder, normalization="batch").norm, keras.layers.BatchNormalization)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@for_every_mlp_builder
def test_mixed_precision_is_close(builder, policy, images, randomize):
    exact, mixed = randomize(small(builder)), small(builder, dtype=policy)
    mixed.set_weights(exact.get_weights())
    assert mixed.blocks[0][-1].compute_dtype == policy.removeprefix("mixed_")
    assert mixed.get_layer("head").compute_dtype == "float32"
    expected = output(exact, images)
    assert np.abs(output(mixed, images) - expected).max() < 0.05 * np.abs(expected).max()


@for_every_mlp_builder
def test_learns(builder, images):
    keras.utils.set_random_seed(0)
    model = small(builder)
    before = model.get_weights()
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch(images, np.arange(2))) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert all((now != then).any() for now, then in zip(model.get_weights(), before, strict=True))


BUILD = {name: getattr(keras_mixers, name) for name in MLP_BUILDERS}
REFUSED = {
    "token ratio of 0": (lambda: BUILD["MLPMixer"](8, 1, token_ratio=0), "token_ratio must be a positive number, got"),
    "channel ratio below 0": (lambda: BUILD["gMLP"](8, 1, channel_ratio=-1), "channel_ratio must be a positive .*=-1"),
    "ratio that is no number": (lambda: BUILD["ResMLP"](8, 1, channel_ratio="4"), "channel_ratio must be .*='4'"),
    "no hidden unit": (lambda: BUILD["MLPMixer"](8, 1, token_ratio=0.1), "hidden must be a whole number of at least 1"),
    "odd gates": (lambda: BUILD["gMixer"](9, 1), "hidden must be even where half of it are gates, got hidden=9"),
    "odd gating": (lambda: BUILD["gMLP"](9, 1, channel_ratio=1), "hidden must be even, as one half gates the other"),
    "dim": (lambda: BUILD["MLPMixer"](0, 1), "dim must be a whole number of at least 1, got dim=0"),
    "blocks": (lambda: BUILD["ResMLP"](8, 0), "blocks must be a whole number of at least 1, got blocks=0"),
    "image size": (lambda: BUILD["gMLP"](8, 1, image_size=0), "image_size must be a whole number of at least 1"),
    "image of no patch": (lambda: BUILD["MLPMixer"](8, 1, image_size=8), "at least one patch high and wide, got 8"),
    "unknown size": (
        lambda: BUILD["MLPMixer"](8, 1, input_shape=(None, 224, 3), data_format="channels_last"),
        "TokenMLP mixes a fixed number of patches, so it must know the size",
    ),
    "layer scale": (lambda: BUILD["ResMLP"](8, 1, layer_scale=-1), "layer_scale must be a positive number"),
    "final norm": (lambda: BUILD["gMLP"](8, 1, final_normalization="rms"), "final_normalization must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refusal:
        build()
    assert "\n" not in str(refusal.value)


@for_every_mlp_builder
def test_reports_an_unknown_argument_as_its_own(builder):
    with pytest.raises(TypeError, match=f"^{builder} has no argument 'channel_rato'; did you mean 'channel_ratio'[?]$"):
        getattr(keras_mixers, builder)(**arguments_of(builder), channel_rato=3)


def test_mixes_with_other_mixers(images):
    """Pre-norm and post-norm mixers in one network: ResMLP's positions, SplitMixer's channels."""
    model = keras_mixers.IsotropicMixer(
        12, 2, input_shape=(8, 10, 3), data_format="channels_last",
        spatial_mixer=lambda block, **shared: layers.TokenLinear(**{**shared, "normalization": "affine"}),
        channel_mixer=lambda block, **shared: layers.ChannelSplitMixerI(2 / 3, block, **shared),
    )  # fmt: skip
    assert np.isfinite(output(model, images)).all()
    embed, norm, segment = 4 * 3 * 12 + 12 + 24, 24, 8 * 8 + 8
    counted = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert counted == embed + 2 * (20 * 20 + 20 + norm + segment + norm) + 12 * 10 + 10
