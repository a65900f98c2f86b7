"""Keras's own int8 reaches the pointwise convolutions, which hold most of a network's weights."""

import keras
import numpy as np
import pytest
from keras import ops
from small_networks import small

from keras_mixers.layers import ChannelMixer

unless_too_old = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 12),
    reason=f"Keras {keras.__version__} does not quantise layers of others",
)


@unless_too_old
@pytest.mark.filterwarnings("ignore:Layer")  # Keras says of each other layer that it stays
@pytest.mark.parametrize(
    "builder",
    [
        "SplitMixerI",
        *(pytest.param(name, marks=pytest.mark.backend_independent) for name in ("ConvMixer", "StrideMixer")),
    ],
)
def test_quantize_changes_them_and_is_saved(builder, randomize, rng, tmp_path):
    halves = {"channel_kernel_size": 24, "channel_stride": 24} if builder == "StrideMixer" else {}
    network = randomize(small(builder, dim=48, **halves))
    images = rng.normal(size=(2, 12, 12, 3)).astype("float32")
    before = ops.convert_to_numpy(network(images, training=False))
    pointwise = sum(
        layer.kernel.shape[0] * layer.kernel.shape[1]
        for layer in network._flatten_layers()
        if type(layer).__name__ == "PointwiseConvolution"
    )
    network.quantize("int8")
    small_weights = sum(np.prod(weight.shape) for weight in network.weights if weight.dtype == "int8")
    assert small_weights == pointwise + 48 * 5  # and the head
    after = ops.convert_to_numpy(network(images, training=False))
    assert 1e-6 < np.abs(after - before).max() < 0.05 * np.abs(before).max()
    network.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(images, training=False)), after, atol=1e-5)


def test_says_that_keras_is_too_old(monkeypatch):
    mixer = ChannelMixer()
    mixer.build((None, 4, 4, 8))
    monkeypatch.setattr(keras, "__version__", "3.11.3")
    with pytest.raises(ImportError, match="Quantisation of a mixer needs Keras 3.12 or newer, got 3.11.3"):
        mixer.pointwise.quantize("int8")


@unless_too_old
def test_refuses_channels_first():
    mixer = ChannelMixer(data_format="channels_first")
    mixer.build((None, 8, 4, 4))
    with pytest.raises(
        ValueError, match=r"A mixer can be quantised with its channels last, .*got data_format='channels_first'"
    ):
        mixer.pointwise.quantize("int8")
