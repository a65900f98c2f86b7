"""One equation, one layer."""

from keras_mixers.layers.channel_mixers import (
    ChannelMixer,
    ChannelSplitMixer,
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
    segment_spans,
)
from keras_mixers.layers.normalize_pixels import NormalizePixels
from keras_mixers.layers.patch_embed import PatchEmbed
from keras_mixers.layers.spatial_mixers import SpatialMixer1D, SpatialMixer2D

__all__ = [
    "ChannelMixer",
    "ChannelSplitMixer",
    "ChannelSplitMixerI",
    "ChannelSplitMixerII",
    "ChannelSplitMixerIII",
    "ChannelSplitMixerIV",
    "ChannelSplitMixerV",
    "ChannelStrideMixer",
    "NormalizePixels",
    "PatchEmbed",
    "SpatialMixer1D",
    "SpatialMixer2D",
    "segment_spans",
]
