"""A folded network gives what the network gives, from plain Keras layers and with less to do."""

import itertools
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops
from small_networks import for_all_builders, small

import keras_mixers
from keras_mixers import layers
from keras_mixers.export.folding import Form, Writer, kernel_blocks, lower
from keras_mixers.layers.normalization import BatchNormalization

OPTIONS = {
    "plain": {},
    "no residual": {"residual": None},
    "both residuals": {"residual": "both"},
    "channels first": {"data_format": "channels_first", "activation": "relu"},
    "layer norm": {"normalization": "layer"},
    "no norm": {"normalization": None},
    "feature maps": {"include_top": False},
    "mean": {"include_top": False, "pooling": "avg", "data_format": "channels_first"},
    "maximum": {"include_top": False, "pooling": "max"},
    "overlapping patches": {"patch_stride": 1, "classifier_activation": "softmax"},
}


def images_of(network, rng, size=(10, 12)):
    size = size if None in network.image_sides else network.image_sides
    channels_first = network.input_shape[1] == 3
    return rng.normal(size=(2, 3, *size) if channels_first else (2, *size, 3)).astype("float32")


def outputs(network, images):
    return ops.convert_to_numpy(network(images, training=False))


def assert_equal_outputs(network, other, images):
    expected = outputs(network, images)
    np.testing.assert_allclose(outputs(other, images), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def norms(network):
    """The channels of each norm of a network."""
    kinds = BatchNormalization | keras.layers.BatchNormalization
    return [layer.gamma.shape[0] for layer in network._flatten_layers() if isinstance(layer, kinds)]


@for_all_builders
def test_gives_what_the_network_gives(builder, randomize, rng):
    network = randomize(small(builder))
    folded = keras_mixers.fold(network)
    assert not any(type(layer).__module__.startswith("keras_mixers") for layer in folded._flatten_layers())
    assert_equal_outputs(network, folded, images_of(network, rng))


@pytest.mark.backend_independent
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("builder", ["ConvMixer", "SplitMixerI", "SplitMixerV", "gMixer", "ResMLP", "gMLP"])
def test_gives_what_every_network_gives_in_every_form(builder, options, randomize, rng):
    network = randomize(small(builder, **OPTIONS[options]))
    images = images_of(network, rng)
    for form in (
        Form(),
        Form(data_format="channels_first"),
        Form(multiply_add="depthwise"),
        Form(folded=False),
        Form(units=False),
        Form(dense=False, multiply_add="depthwise", units=False),
    ):
        assert_equal_outputs(network, lower(network, form), images)


def test_less_is_left_to_do(randomize):
    """A residual branch's norm and the last one go; one between two convolutions leaves a sum."""
    conv_mixer = randomize(keras_mixers.ConvMixer(12, 3, kernel_size=3, num_classes=4))
    assert norms(conv_mixer) == [12] * 7
    assert norms(keras_mixers.fold(conv_mixer)) == [12] * 3
    split_mixer = randomize(keras_mixers.SplitMixerI(12, 3, ratio=2 / 3))
    assert norms(split_mixer) == [12] * 10
    assert sorted(norms(keras_mixers.fold(split_mixer))) == [4] * 3 + [12] * 3  # of each block the unmixed third
    assert norms(keras_mixers.fold(randomize(keras_mixers.SplitMixerV(12, 3, ratio=2 / 3)))) == [12] * 3


@pytest.mark.backend_independent
def test_scales_and_shifts_go_into_products_over_channels(randomize):
    """A layer norm's before an MLP over channels and before the head, ResMLP's affine ones and its LayerScale."""

    def scaled(network):
        found = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.LayerNormalization)]
        return [layer.gamma is not None for layer in found]

    mixer = randomize(small("MLPMixer"))
    assert scaled(keras_mixers.fold(mixer)) == [True, False] * 2 + [False]
    assert scaled(lower(mixer, Form(folded=False))) == [True] * 5
    gated = randomize(small("gMLP"))
    assert scaled(keras_mixers.fold(gated)) == [False, True] * 2 + [False]
    residual = randomize(small("ResMLP"))
    assert norms(keras_mixers.fold(residual)) == [12] * 4  # before and after the product over the positions
    assert norms(lower(residual, Form(folded=False))) == [12] * 9


@pytest.mark.backend_independent
def test_products_over_positions_beside_convolutions(randomize, rng):
    def spatial(block, **shared):
        return layers.SpatialMixer2D(3, **shared) if block == 1 else layers.TokenMLP(8, **shared)

    def channel(block, **shared):
        return layers.ChannelMLP(24, **shared) if block == 1 else layers.ChannelSplitMixerI(2 / 3, block, **shared)

    for top in (True, False):
        network = randomize(keras_mixers.IsotropicMixer(
            12, 3, input_shape=(8, 10, 3), spatial_mixer=spatial, channel_mixer=channel, residual="both",
            include_top=top, data_format="channels_last",
        ))  # fmt: skip
        for form in (Form(), Form(dense=False), Form(data_format="channels_first", folded=False)):
            assert_equal_outputs(network, lower(network, form), images_of(network, rng))


KERNELS = {
    "5": 5,
    "6": 6,
    "7": 7,
    "8": 8,
    "9": 9,
    "10": 10,
    "13": 13,
    "2 x 14": (2, 14),
    "14 x 2": (14, 2),
    "1 x 27": (1, 27),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", KERNELS)
def test_blocks_of_a_large_kernel_add_up_to_it(size, padding, data_format, rng):
    channels_last = data_format == "channels_last"
    if keras.backend.backend() == "tensorflow" and not channels_last:
        pytest.skip("TensorFlow computes depthwise convolutions of channels first on a GPU only")
    maps = keras.Input((None, None, 3) if channels_last else (3, None, None))
    depthwise = keras.layers.DepthwiseConv2D(KERNELS[size], padding=padding, data_format=data_format)
    depthwise(maps)
    depthwise.set_weights([rng.normal(size=weight.shape) for weight in depthwise.get_weights()])
    writer = Writer(Form(data_format=data_format, depthwise_taps=25))
    scale = rng.uniform(0.5, 2, 3)
    written = writer.convolve(depthwise, replace(writer.maps(maps), scale=scale), "large")
    in_blocks = keras.Model(maps, written.tensor)
    blocks = [layer for layer in in_blocks.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert len(blocks) == len(kernel_blocks(depthwise.kernel_size, 25))
    assert max(np.prod(block.kernel_size) for block in blocks) <= 25
    images = rng.normal(size=(2, 29, 31, 3) if channels_last else (2, 3, 29, 31)).astype("float32")
    scaled = images * np.asarray(scale, "float32").reshape((3,) if channels_last else (3, 1, 1))
    expected = ops.convert_to_numpy(depthwise(scaled))
    np.testing.assert_allclose(
        ops.convert_to_numpy(in_blocks(images)), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.backend_independent
def test_blocks_cover_a_kernel_once_and_are_as_few_as_they_can_be():
    for size in itertools.product(range(1, 15), repeat=2):
        covered = np.zeros(size, int)
        for rows, columns in kernel_blocks(size, 25):
            covered[slice(*rows), slice(*columns)] += 1
            assert (rows[1] - rows[0]) * (columns[1] - columns[0]) <= 25
        assert (covered == 1).all()
    assert [len(kernel_blocks((k, k), 25)) for k in (5, 6, 7, 8, 9, 10, 11)] == [1, 2, 3, 3, 4, 4, 6]
    assert len(kernel_blocks((31, 31), None)) == 1


@pytest.mark.backend_independent
def test_a_network_of_large_kernels_is_the_same_in_blocks(randomize, rng):
    network = randomize(small("ConvMixer", kernel_size=8))
    assert_equal_outputs(network, lower(network, Form(depthwise_taps=25)), images_of(network, rng))


@pytest.mark.backend_independent
@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation_rate": 2}])
def test_a_kernel_with_a_stride_or_a_dilation_stays_whole(options, rng):
    maps = keras.Input((20, 20, 3))
    depthwise = keras.layers.DepthwiseConv2D(7, padding="same", **options)
    depthwise(maps)
    writer = Writer(Form(depthwise_taps=25))
    written = keras.Model(maps, writer.convolve(depthwise, writer.maps(maps), "whole").tensor)
    images = rng.normal(size=(1, 20, 20, 3)).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(written(images)), ops.convert_to_numpy(depthwise(images)), atol=1e-5
    )


def test_a_scale_of_zero_is_not_divided_by(randomize, rng):
    network = randomize(small("SplitMixerI"))
    for layer in network._flatten_layers():
        if isinstance(layer, BatchNormalization):
            gamma = ops.convert_to_numpy(layer.gamma).copy()
            gamma[::3] = 0
            layer.gamma.assign(gamma)
    assert_equal_outputs(network, keras_mixers.fold(network), images_of(network, rng))


def test_computes_in_float32_whatever_the_network_does(randomize, rng):
    network = randomize(small("SplitMixerI", dtype="mixed_bfloat16"))
    folded = keras_mixers.fold(network)
    assert {layer.compute_dtype for layer in folded.layers} == {"float32"}
    wide = small("SplitMixerI")
    wide.set_weights(network.get_weights())
    assert_equal_outputs(wide, folded, images_of(network, rng))


def test_normalised_pixels_go_into_the_patch_embedding(randomize, rng):
    pixels = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    network = randomize(small("SplitMixerI", preprocessing=pixels))
    folded = keras_mixers.fold(network)
    assert len(folded.layers) == len(keras_mixers.fold(randomize(small("SplitMixerI"))).layers)
    assert_equal_outputs(network, folded, rng.integers(0, 256, (2, 8, 8, 3)).astype("float32"))


@pytest.mark.backend_independent
def test_a_folded_network_is_loaded_without_this_library(randomize, rng, tmp_path):
    network = randomize(small("SplitMixerI"))
    images = images_of(network, rng)
    keras_mixers.fold(network).save(tmp_path / "folded.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, keras, numpy as np; folder = sys.argv[1]; "
        "model = keras.models.load_model(folder + '/folded.keras'); "
        "np.save(folder + '/outputs.npy', model.predict(np.load(folder + '/images.npy'), verbose=0)); "
        "assert 'keras_mixers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs(network, images), atol=1e-5)


def test_refuses_what_it_does_not_know():
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name="other")
    with pytest.raises(ValueError, match=r"fold takes a network of keras_mixers, got 'other' of Sequential"):
        keras_mixers.fold(other)
    own = keras_mixers.IsotropicMixer(
        8, 1, spatial_mixer=lambda block, **_: keras.layers.AveragePooling2D(1, name="own"), channel_mixer=None
    )
    with pytest.raises(ValueError, match=r"fold knows the layers of keras_mixers, not 'own' of AveragePooling2D"):
        keras_mixers.fold(own)
    quantized = small("SplitMixerI")
    quantized.quantize("int8")
    with pytest.raises(ValueError, match=r"fold takes a network before it is quantised, got .* in int8"):
        keras_mixers.fold(quantized)
