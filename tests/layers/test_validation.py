"""Wrong arguments are refused by name, with the value that was given."""

import contextlib
import re

import numpy as np
import pytest
from agreement import built
from every_layer import SHAPE, for_every_layer, for_every_mixer

from keras_mixers.layers import (
    ChannelMixer,
    ChannelSplitMixer,
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
    PatchEmbed,
    SpatialMixer1D,
    SpatialMixer2D,
)

AT_ONCE = [
    (PatchEmbed, {"dim": 0, "patch_size": 2}, "dim", "0"),
    (PatchEmbed, {"dim": -3, "patch_size": 2}, "dim", "-3"),
    (PatchEmbed, {"dim": 1.5, "patch_size": 2}, "dim", "1.5"),
    (PatchEmbed, {"dim": 8, "patch_size": 0}, "patch_size", "0"),
    (PatchEmbed, {"dim": 8, "patch_size": 2, "stride": 0}, "stride", "0"),
    (PatchEmbed, {"dim": 8, "patch_size": 2, "stride": -1}, "stride", "-1"),
    (PatchEmbed, {"dim": 8, "patch_size": 2, "padding": "sane"}, "padding", "sane"),
    (SpatialMixer1D, {"kernel_size": 0}, "kernel_size", "0"),
    (SpatialMixer2D, {"kernel_size": -2}, "kernel_size", "-2"),
    (ChannelStrideMixer, {"kernel_size": 0}, "kernel_size", "0"),
    (ChannelStrideMixer, {"kernel_size": 4, "stride": 0}, "stride", "0"),
    (ChannelSplitMixer, {"segments": 0}, "segments", "0"),
    (ChannelSplitMixerII, {"segments": 0}, "segments", "0"),
    (ChannelSplitMixerIII, {"segments": -1}, "segments", "-1"),
    (ChannelSplitMixerIV, {"segments": 0}, "segments", "0"),
    (ChannelSplitMixer, {"segments": 2, "block": -1}, "block", "-1"),
    (ChannelSplitMixerI, {"block": -1}, "block", "-1"),
    (ChannelSplitMixerII, {"block": -1}, "block", "-1"),
    (ChannelSplitMixerI, {"ratio": 0.5}, "ratio", "0.5"),
    (ChannelSplitMixerI, {"ratio": 1.2}, "ratio", "1.2"),
    (ChannelSplitMixerV, {"ratio": 0.5}, "ratio", "0.5"),
    (ChannelSplitMixerV, {"ratio": 1.2}, "ratio", "1.2"),
    (ChannelSplitMixer, {"segments": 2, "ratio": 0.5}, "ratio", "0.5"),
    (ChannelSplitMixer, {"segments": 4, "ratio": 0.25}, "ratio", "0.25"),
    (ChannelSplitMixer, {"segments": 3, "ratio": 1.2}, "ratio", "1.2"),
    (ChannelSplitMixer, {"segments": 1, "ratio": 0.0}, "ratio", "0.0"),
]

FOR_TWELVE_CHANNELS = [
    (ChannelSplitMixer, {"segments": 13}, ["segments", "13", "12"]),
    (ChannelSplitMixerII, {"segments": 13}, ["segments", "13", "12"]),
    (ChannelSplitMixerIV, {"segments": 13}, ["segments", "13", "12"]),
    (ChannelSplitMixerIII, {"segments": 5}, ["III", "dim", "12", "segments", "5"]),
    (ChannelSplitMixer, {"segments": 5, "shared": True}, ["segments", "5", "12"]),
    (ChannelSplitMixer, {"segments": 5, "shuffle": True}, ["segments", "5", "12"]),
    (ChannelSplitMixer, {"segments": 5, "ratio": 0.5, "shuffle": True}, ["segments", "5", "12"]),
    (ChannelStrideMixer, {"kernel_size": 13}, ["kernel_size", "13", "12"]),
    (ChannelStrideMixer, {"kernel_size": 5}, ["kernel_size", "5", "12"]),  # 12 - 5 is no multiple of 5
    (ChannelStrideMixer, {"kernel_size": 4, "stride": 3}, ["kernel_size", "4", "stride", "3", "12"]),
    (ChannelStrideMixer, {"kernel_size": 4, "stride": 2}, ["kernel_size", "4", "stride", "2", "12"]),  # 5 positions
]


@contextlib.contextmanager
def refused(*words):
    """The refusal holds these words, the argument's name first."""
    with pytest.raises(ValueError, match=words[0]) as error:
        yield
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("layer", "arguments", "name", "value"), AT_ONCE, ids=str)
def test_refuses_a_wrong_argument_at_once(layer, arguments, name, value):
    with refused(name, value):
        layer(**arguments)


WORDS = {"activation": "gelo", "normalization": "bach", "data_format": "NHWC", "initializer": "xavier"}


@for_every_layer
@pytest.mark.parametrize(("name", "value"), WORDS.items())
def test_every_layer_refuses_an_unknown_word(make, name, value):
    with refused(name, value):
        make(**{name: value})


@for_every_mixer
@pytest.mark.parametrize("rate", [1.0, -0.1, 1.5])
def test_every_mixer_refuses_a_drop_path_rate_outside_0_to_1(make, rate):
    with refused("drop_path_rate", str(rate)):
        make(drop_path_rate=rate)


@pytest.mark.parametrize(("layer", "arguments", "words"), FOR_TWELVE_CHANNELS, ids=str)
def test_refuses_what_does_not_fit_the_channels(layer, arguments, words):
    for data_format, shape in (("channels_last", (1, 2, 2, 12)), ("channels_first", (1, 12, 2, 2))):
        with refused(*words):
            layer(**arguments, data_format=data_format)(np.zeros(shape, "float32"))


@for_every_layer
def test_every_layer_refuses_an_input_that_is_no_batch_of_images(make):
    for shape in [(2, 8, 12), (2, 8, 6, 1, 12)]:
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            make()(np.zeros(shape, "float32"))


@for_every_layer
def test_every_layer_refuses_other_channels_than_it_was_built_for(make):
    layer = built(make(), SHAPE)
    with pytest.raises(ValueError, match="24"):
        layer(np.zeros((*SHAPE[:3], 24), "float32"))


def test_options_are_keywords_only():
    with pytest.raises(TypeError):
        ChannelMixer("relu")


@for_every_layer
def test_a_mistyped_argument_is_refused(make):
    with pytest.raises((TypeError, ValueError), match="actvation"):
        make(actvation="relu")
