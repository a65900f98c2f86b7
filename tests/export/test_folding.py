"""A folded network gives what the network gives, from plain Keras layers and with less to do."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from small_networks import for_every_builder, small

import keras_mixers
from keras_mixers.export.folding import Form, lower
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


@for_every_builder
def test_gives_what_the_network_gives(builder, randomize, rng):
    network = randomize(small(builder))
    assert_equal_outputs(network, keras_mixers.fold(network), images_of(network, rng))


@pytest.mark.backend_independent
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("builder", ["ConvMixer", "SplitMixerI", "SplitMixerV"])
def test_gives_what_every_network_gives_in_every_form(builder, options, randomize, rng):
    network = randomize(small(builder, **OPTIONS[options]))
    images = images_of(network, rng)
    for form in (
        Form(),
        Form(data_format="channels_first"),
        Form(multiply_add="depthwise"),
        Form(folded=False),
        Form(units=False),
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
