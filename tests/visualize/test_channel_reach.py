"""What the matrices say of channels is what happens when one of them changes."""

import keras
import numpy as np
import pytest
from small_networks import small

from keras_mixers import ConvMixer, IsotropicMixer, SplitMixerI, SplitMixerII, SplitMixerIII, SplitMixerV, layers
from keras_mixers.visualize import reachable_channels
from keras_mixers.visualize.channel_reach import mixed_channels

MIXERS = {
    "all": lambda block, **shared: layers.ChannelMixer(**shared),
    "I": lambda block, **shared: layers.ChannelSplitMixerI(2 / 3, block, **shared),
    "II": lambda block, **shared: layers.ChannelSplitMixerII(3, block, **shared),
    "III": lambda block, **shared: layers.ChannelSplitMixerIII(3, **shared),
    "IV": lambda block, **shared: layers.ChannelSplitMixerIV(5, **shared),
    "V": lambda block, **shared: layers.ChannelSplitMixerV(3 / 5, **shared),
    "three that overlap": lambda block, **shared: layers.ChannelSplitMixer(3, 1 / 2, **shared),
    "shuffled": lambda block, **shared: layers.ChannelSplitMixer(3, shared=True, shuffle=True, **shared),
    "one of three, shuffled": lambda block, **shared: layers.ChannelSplitMixer(3, block=block, shuffle=True, **shared),
    "MLP": lambda block, **shared: layers.ChannelMLP(24, **shared),
    "gated by positions": lambda block, **shared: layers.SpatialGatingMLP(24, **shared),
    "strided": lambda block, **shared: layers.ChannelStrideMixer(6, 2, **shared),
}


@pytest.mark.parametrize("residual", [None, "channel"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_is_what_changes(mixer, residual, randomize, rng):
    model = IsotropicMixer(
        12, 3, 1, spatial_mixer=None, channel_mixer=MIXERS[mixer], residual=residual, activation="tanh",
        data_format="channels_last", input_shape=(1, 1, 3),
    )  # fmt: skip
    randomize(model)
    x = rng.normal(size=12)
    x = np.stack([x, *(x + np.eye(12))])[:, None, None].astype("float32")  # as it is, and with one channel changed
    for block, reach in enumerate(reachable_channels(model)):
        mix = model.get_layer(f"block_{block}_channel")
        # One by one: in a batch, how an image is rounded depends on its place on some CPUs.
        x = np.concatenate([keras.ops.convert_to_numpy(mix(image[None])) for image in x])
        np.testing.assert_array_equal(np.abs(x[1:] - x[0])[:, 0, 0].T > 1e-9, reach)


def test_information_crosses_only_where_segments_overlap():
    """Of the paper's mixers, I and V reach everywhere, II and III never do before the head."""
    three = {"segments": 3}
    networks = {ConvMixer: {}, SplitMixerI: {}, SplitMixerII: three, SplitMixerIII: three, SplitMixerV: {}}
    reach = {build: reachable_channels(build(9, 4, **options)) for build, options in networks.items()}
    counts = {build: found.sum((1, 2)).tolist() for build, found in reach.items()}
    assert counts[ConvMixer] == [81] * 4
    assert counts[SplitMixerI] == [6 * 6 + 3, 3 * 6 + 6 * 9, 81, 81]  # six of nine channels a block
    assert counts[SplitMixerII] == [9 + 6, 9 + 9 + 3, 27, 27]
    assert counts[SplitMixerIII] == [27] * 4
    assert counts[SplitMixerV] == [3 * 6 + 6 * 9, 81, 81, 81]


def test_refusals():
    with pytest.raises(ValueError, match="model must have channel mixers"):
        reachable_channels(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="mixer must be a channel mixer of keras_mixers, got TokenLinear"):
        mixed_channels(small("ResMLP").get_layer("block_0_spatial"), 12)
    with pytest.raises(ValueError, match="mixer must be a channel mixer of keras_mixers, got SpatialMixer1D"):
        mixed_channels(small().get_layer("block_0_spatial"), 12)
