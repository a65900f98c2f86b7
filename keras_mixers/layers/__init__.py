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
    PointwiseMixer,
    segment_spans,
)
from keras_mixers.layers.mixing_layer import MixingLayer, PostNormLayer
from keras_mixers.layers.mlp_mixers import ChannelMLP, SpatialGatingMLP, TokenLinear, TokenMLP
from keras_mixers.layers.normalize_pixels import NormalizePixels
from keras_mixers.layers.patch_embed import PatchEmbed
from keras_mixers.layers.pre_norm_mixer import PreNormMixer
from keras_mixers.layers.spatial_mixers import SpatialMixer, SpatialMixer1D, SpatialMixer2D

__all__ = [
    "ChannelMLP",
    "ChannelMixer",
    "ChannelSplitMixer",
    "ChannelSplitMixerI",
    "ChannelSplitMixerII",
    "ChannelSplitMixerIII",
    "ChannelSplitMixerIV",
    "ChannelSplitMixerV",
    "ChannelStrideMixer",
    "MixingLayer",
    "NormalizePixels",
    "PatchEmbed",
    "PointwiseMixer",
    "PostNormLayer",
    "PreNormMixer",
    "SpatialGatingMLP",
    "SpatialMixer",
    "SpatialMixer1D",
    "SpatialMixer2D",
    "TokenLinear",
    "TokenMLP",
    "segment_spans",
]
