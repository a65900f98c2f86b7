"""Keras's own int8 reaches all products, over channels and over positions, which hold most of a network's weights."""

import keras
import numpy as np
import pytest
from keras import ops
from small_networks import small

from keras_mixers.layers import ChannelMixer, TokenLinear

unless_too_old = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 12),
    reason=f"Keras {keras.__version__} does not quantise layers of others",
)


@pytest.fixture(autouse=True)
def without_collecting_garbage(monkeypatch):
    """Keras collects garbage for each product, which takes up to a second among all that tests import."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


@unless_too_old
@pytest.mark.filterwarnings("ignore:Layer")  # Keras says of each other layer that it stays
@pytest.mark.parametrize(
    "builder",
    [
        "SplitMixerI",
        "gMixer",  # of as many hidden units as channels
        *(
            pytest.param(name, marks=pytest.mark.backend_independent)
            for name in ("ConvMixer", "StrideMixer", "MLPMixer", "ResMLP", "gMLP")
        ),
    ],
)
def test_quantize_changes_them_and_is_saved(builder, randomize, rng, tmp_path):
    halves = {"channel_kernel_size": 24, "channel_stride": 24} if builder == "StrideMixer" else {}
    network = randomize(small(builder, dim=48, input_shape=(12, 12, 3), **halves))
    images = rng.normal(size=(2, 12, 12, 3)).astype("float32")
    before = ops.convert_to_numpy(network(images, training=False))
    products = sum(
        layer.kernel.shape[0] * layer.kernel.shape[1]
        for layer in network._flatten_layers()
        if type(layer).__name__ in ("PointwiseConvolution", "TokenDense")
    )
    network.quantize("int8")
    small_weights = sum(np.prod(weight.shape) for weight in network.weights if weight.dtype == "int8")
    assert small_weights == products + 48 * 5  # and the head
    after = ops.convert_to_numpy(network(images, training=False))
    assert 1e-6 < np.abs(after - before).max() < 0.05 * np.abs(before).max()
    network.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(images, training=False)), after, atol=1e-5)


@unless_too_old
@pytest.mark.backend_independent
@pytest.mark.filterwarnings("ignore:Layer")
@pytest.mark.parametrize("mode", ["int4", "float8"])
@pytest.mark.parametrize("builder", ["ConvMixer", "gMLP"])
def test_keras_s_other_modes(builder, mode, randomize, rng, tmp_path):
    network = randomize(small(builder, dim=48, input_shape=(12, 12, 3)))
    images = rng.normal(size=(2, 12, 12, 3)).astype("float32")
    before = ops.convert_to_numpy(network(images, training=False))
    network.quantize(mode)
    after = ops.convert_to_numpy(network(images, training=False))
    assert 1e-3 < np.abs(after - before).max() / np.abs(before).max() < 0.25
    network.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(images, training=False)), after, atol=1e-5)


def test_says_that_keras_is_too_old(monkeypatch):
    mixer = ChannelMixer()
    mixer.build((None, 4, 4, 8))
    monkeypatch.setattr(keras, "__version__", "3.11.3")
    linear = TokenLinear()
    linear.build((None, 4, 4, 8))
    for product in (mixer.pointwise, linear.product):
        with pytest.raises(ImportError, match="Quantisation of a mixer needs Keras 3.12 or newer, got 3.11.3"):
            product.quantize("int8")


@unless_too_old
def test_refuses_channels_first():
    mixer = ChannelMixer(data_format="channels_first")
    mixer.build((None, 8, 4, 4))
    with pytest.raises(
        ValueError, match=r"A mixer can be quantised with its channels last, .*got data_format='channels_first'"
    ):
        mixer.pointwise.quantize("int8")
