"""The one place where a network is assembled: shapes, options, ablations, round trips, refusals."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_networks import BUILDERS, MLP_BUILDERS, for_all_builders, for_every_builder, small

import keras_mixers
from keras_mixers import layers


def isotropic(spatial, channel, **options):
    return keras_mixers.IsotropicMixer(12, 2, spatial_mixer=spatial, channel_mixer=channel, **options)


def spatial_1d(block, **shared):
    return layers.SpatialMixer1D(3, **shared)


def full(block, **shared):
    return layers.ChannelMixer(**shared)


def output(model, x, training=False):
    return keras.ops.convert_to_numpy(model(x, training=training))


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 8, 10, 3)).astype("float32")


@for_every_builder
def test_a_block_is_two_layers(builder):
    names = [layer.name for layer in small(builder).layers]
    blocks = [f"block_{i}_{kind}" for i in range(2) for kind in ("spatial", "channel")]
    assert names == ["image", "patch_embed", *blocks, "pool", "head"]


@for_all_builders
def test_is_the_same_in_both_data_formats(builder, images, randomize):
    last, first = randomize(small(builder)), small(builder, data_format="channels_first")
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(output(last, images), output(first, images.transpose(0, 3, 1, 2)), rtol=1e-4, atol=1e-5)


@for_all_builders
def test_is_the_same_after_a_keras_file_to_the_bit(builder, images, randomize, tmp_path):
    model = randomize(small(builder))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(output(again, images), output(model, images))


LOAD = "import sys, numpy, keras, keras_mixers; d = sys.argv[1]; x = numpy.load(d + '/x.npy')\n" + (
    "for n in sys.argv[2:]: numpy.save(f'{d}/{n}_there.npy', keras.ops.convert_to_numpy("
    "keras.models.load_model(f'{d}/{n}.keras')(x, training=False)))"
)


@pytest.mark.backend_independent
@pytest.mark.parametrize("other", ["jax", "tensorflow", "torch"])
def test_is_the_same_on_another_backend(other, images, randomize, tmp_path):
    if other == keras.backend.backend():
        pytest.skip(f"{other} is the backend of this process")
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    np.save(tmp_path / "x.npy", images)
    builders = [*BUILDERS, *MLP_BUILDERS]
    for builder in builders:
        model = randomize(small(builder))
        model.save(tmp_path / f"{builder}.keras")
        np.save(tmp_path / f"{builder}_here.npy", output(model, images))
    environment = {**os.environ, "KERAS_BACKEND": other}
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path), *builders], env=environment, check=True, timeout=300)
    for builder in builders:
        here, there = (np.load(tmp_path / f"{builder}_{place}.npy") for place in ("here", "there"))
        assert np.max(np.abs(here - there)) <= 1e-5 * np.max(np.abs(here)), builder


def test_takes_any_size_unless_input_shape_fixes_it():
    assert small().input_shape == (None, None, None, 3)
    assert small(data_format="channels_first").input_shape == (None, 3, None, None)
    fixed = small(input_shape=(16, 24, 1))
    assert fixed.get_layer("block_1_channel").output.shape == (None, 8, 12, 12)
    for side in (2, 7, 32):
        assert output(small(), np.zeros((1, side, side, 3), "float32")).shape == (1, 5)


def test_without_the_top_gives_features(images):
    features = output(small(include_top=False), images)
    assert features.shape == (2, 4, 5, 12)
    model = small(include_top=False, pooling="avg")
    maps = keras.Model(model.input, model.get_layer("block_1_channel").output)
    np.testing.assert_allclose(output(model, images), output(maps, images).mean((1, 2)), rtol=1e-5, atol=1e-6)
    largest = small(include_top=False, pooling="max")
    largest.set_weights(model.get_weights())
    np.testing.assert_allclose(output(largest, images), output(maps, images).max((1, 2)), rtol=1e-5, atol=1e-6)


def test_gives_logits_or_what_the_classifier_activation_makes_of_them(images):
    logits, probabilities = small(), small(classifier_activation="softmax")
    probabilities.set_weights(logits.get_weights())
    z = output(logits, images)
    expected = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(output(probabilities, images), expected, rtol=1e-5)


@pytest.mark.parametrize("residual", ["spatial", "channel", "both", None])
def test_residuals_are_where_the_argument_says(residual):
    model = small(residual=residual)
    for kind in ("spatial", "channel"):
        assert model.get_layer(f"block_1_{kind}").residual == (residual in (kind, "both"))


def test_ablations_are_arguments(images):
    """Both papers' ablations; the parameters are counted by hand for h = 12, k = 3, p = 2, 10 classes, 2 blocks."""
    embed, head, norm = 3 * 4 * 12 + 12 + 24, 12 * 10 + 10, 24
    one_d, two_d = 2 * (3 * 12 + 12 + norm), 9 * 12 + 12 + norm
    pointwise, segment = 12 * 12 + 12 + norm, 8 * 8 + 8 + norm
    ablations = {
        "1D S + ConvMixer C": (isotropic(spatial_1d, full), one_d + pointwise),
        "2D + C": (
            isotropic(
                lambda block, **shared: layers.SpatialMixer2D(3, **shared),
                lambda block, **shared: layers.ChannelSplitMixerI(2 / 3, block, **shared),
            ),
            two_d + segment,
        ),
        "spatial only": (isotropic(spatial_1d, None), one_d),
        "channel only": (isotropic(None, full), pointwise),
        "one segment": (
            isotropic(spatial_1d, lambda block, **shared: layers.ChannelSplitMixer(1, ratio=2 / 3, **shared)),
            one_d + segment,
        ),
        "LayerNorm": (isotropic(spatial_1d, full, normalization="layer"), one_d + pointwise),
        "ReLU": (isotropic(spatial_1d, full, activation="relu"), one_d + pointwise),
        "no norm": (isotropic(spatial_1d, full, normalization=None), one_d + pointwise - 3 * norm),
    }
    for name, (model, block) in ablations.items():
        stem = embed - (norm if name == "no norm" else 0)
        counted = sum(np.prod(weight.shape) for weight in model.trainable_weights)
        assert counted == stem + 2 * block + head, name
        if keras.config.image_data_format() == "channels_last":
            assert np.isfinite(output(model, images)).all(), name


def test_the_published_1d_spatial_full_channel_network_has_its_parameters():
    for sizes, kernel_size, published in (((2, 10), 5, 569_610), ((7, 102), 7, 636_006)):

        def spatial(block, kernel_size=kernel_size, **shared):
            return layers.SpatialMixer1D(kernel_size, **shared)

        model = keras_mixers.IsotropicMixer(256, 8, *sizes, spatial_mixer=spatial, channel_mixer=full)
        assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == published


@pytest.mark.backend_independent
def test_eq_4_of_the_convmixer_paper_holds(rng):
    for _ in range(5):
        h, d, k, p, classes = (int(rng.integers(1, high)) for high in (40, 5, 10, 9, 30))
        model = keras_mixers.ConvMixer(h, d, k, p, classes)
        expected = h * (d * (k * k + h + 6) + 3 * p * p + classes + 3) + classes
        assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == expected


def test_overlapping_patches():
    model = small(patch_size=4, patch_stride=2, input_shape=(16, 16, 3))
    assert model.get_layer("patch_embed").output.shape == (None, 7, 7, 12)


def test_stochastic_depth_rises_with_the_block():
    model = keras_mixers.SplitMixerI(12, 5, drop_path_rate=0.2)
    rates = [model.get_layer(f"block_{i}_spatial").drop_path_rate for i in range(5)]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2])
    assert model.get_layer("block_4_channel").drop_path_rate == 0


def test_dropout_acts_before_the_head_and_in_training_only(images):
    model = small(dropout_rate=0.5, normalization=None)
    assert [layer.name for layer in model.layers][-2:] == ["head_dropout", "head"]
    np.testing.assert_array_equal(output(model, images), output(model, images))
    assert np.abs(output(model, images, training=True) - output(model, images, training=True)).max() > 0


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_blocks_in_half_and_the_head_in_full(policy, images):
    exact, mixed = small(), small(dtype=policy)
    mixed.set_weights(exact.get_weights())
    assert mixed.get_layer("block_0_channel").compute_dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    logits = output(mixed, images)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, output(exact, images), atol=0.02)


def test_float16_gets_loss_scaling():
    model = small(dtype="mixed_float16")
    model.compile("adamw", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_weights_come_from_a_file(images, tmp_path):
    model = small()
    model.save_weights(tmp_path / "small.weights.h5")
    np.testing.assert_array_equal(output(small(weights=tmp_path / "small.weights.h5"), images), output(model, images))
    with pytest.raises(FileNotFoundError, match="no file of weights at .*absent.weights.h5"):
        small(weights=tmp_path / "absent.weights.h5")
    with pytest.raises(ValueError, match=r"weights must be .* got weights='imagenet'"):
        small(weights="imagenet")


def test_learns_with_fit(images):
    keras.utils.set_random_seed(0)
    model = small()
    model.compile(keras.optimizers.AdamW(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(images, np.array([1, 3]), epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


REFUSALS = [
    ({"dim": 0}, "dim must be a whole number of at least 1, got dim=0"),
    ({"dim": -256}, "dim must be .* got dim=-256"),
    ({"blocks": 0}, "blocks must be .* got blocks=0"),
    ({"blocks": 2.5}, "blocks must be .* got blocks=2.5"),
    ({"kernel_size": -1}, "kernel_size must be .* got kernel_size=-1"),
    ({"patch_size": 0}, "patch_size must be .* got patch_size=0"),
    ({"num_classes": -10}, "num_classes must be .* got num_classes=-10"),
    ({"ratio": 0.5}, r"ratio must be a number in \(0.5, 1\].* got ratio=0.5"),
    ({"ratio": 1.2}, "ratio must be .* got ratio=1.2"),
    ({"activation": "gelo"}, "activation must be .* got activation='gelo'"),
    ({"normalization": "group"}, "normalization must be .* got normalization='group'"),
    ({"residual": "all"}, "residual must be .* got residual='all'"),
    ({"pooling": "mean"}, "pooling must be .* got pooling='mean'"),
    ({"drop_path_rate": 1.0}, "drop_path_rate must be .* got drop_path_rate=1.0"),
    ({"dropout_rate": -0.1}, "dropout_rate must be .* got dropout_rate=-0.1"),
    ({"initializer": "zeros"}, "initializer must be .* got initializer='zeros'"),
    ({"data_format": "NHWC"}, "data_format must be .* got data_format='NHWC'"),
    ({"input_shape": (32, 32)}, r"input_shape must be .* got input_shape=\(32, 32\)"),
    ({"input_shape": (32, 32, None)}, "input_shape must be "),
    ({"input_shape": (-32, 32, 3)}, "input_shape must be "),
    ({"builder": "SplitMixerIII", "segments": 5}, "dim divisible by segments, got dim=12, segments=5"),
    ({"input_shape": (1, 32, 3)}, "at least one patch high and wide, got 1 pixels with patch_size=2"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS, ids=lambda value: str(value)[:40])
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        small(**{"builder": "SplitMixerI", **options})
    assert "\n" not in str(refusal.value)


def test_refuses_images_smaller_than_a_patch_and_of_wrong_rank():
    with pytest.raises(ValueError, match="at least one patch"):
        small(patch_size=4)(np.zeros((1, 3, 9, 3), "float32"))
    with pytest.raises(ValueError, match="shape"):
        small()(np.zeros((9, 9, 3), "float32"))
