"""Every layer, in the settings that differ in kind, for inputs of SHAPE.

SHAPE has as many columns as channels, and so has the output of the patch embeddings: a layer that confuses the two axes
in channels first shows it here. Those of FIXED_GRID take the grid that they are built for, and no other.
"""

import functools

import pytest

from keras_mixers.layers import (
    ChannelMixer,
    ChannelMLP,
    ChannelSplitMixer,
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
    PatchEmbed,
    SpatialGatingMLP,
    SpatialMixer1D,
    SpatialMixer2D,
    TokenLinear,
    TokenMLP,
)

SHAPE = (2, 6, 12, 12)

EVERY_MIXER = {
    "spatial_2d": functools.partial(SpatialMixer2D, 3),
    "spatial_2d_even": functools.partial(SpatialMixer2D, 4),
    "spatial_1d": functools.partial(SpatialMixer1D, 5),
    "spatial_1d_even": functools.partial(SpatialMixer1D, 4),
    "channel": ChannelMixer,
    "split": functools.partial(ChannelSplitMixer, segments=3, ratio=0.5),
    "split_shuffle": functools.partial(ChannelSplitMixer, segments=3, shared=True, shuffle=True),
    "split_block": functools.partial(ChannelSplitMixer, segments=4, ratio=0.5, block=2),
    "split_i_first": ChannelSplitMixerI,
    "split_i_last": functools.partial(ChannelSplitMixerI, ratio=0.6, block=1),
    "split_ii": functools.partial(ChannelSplitMixerII, segments=5, block=4),
    "split_iii": functools.partial(ChannelSplitMixerIII, segments=4),
    "split_iv": functools.partial(ChannelSplitMixerIV, segments=5),
    "split_v": ChannelSplitMixerV,
    "stride": functools.partial(ChannelStrideMixer, 4),
    "stride_overlap": functools.partial(ChannelStrideMixer, 6, stride=2),
    "token_mlp": functools.partial(TokenMLP, 12),
    "token_mlp_gated": functools.partial(TokenMLP, 10, gated=True, layer_scale=0.5),
    "token_linear": TokenLinear,
    "token_linear_scaled": functools.partial(TokenLinear, layer_scale=0.5),
    "channel_mlp": functools.partial(ChannelMLP, 10),
    "channel_mlp_gated": functools.partial(ChannelMLP, 10, gated=True, layer_scale=0.5),
    "spatial_gating_mlp": functools.partial(SpatialGatingMLP, 10),
}
FIXED_GRID = (TokenMLP, TokenLinear, SpatialGatingMLP)

EVERY_LAYER = {
    "patch_embed": functools.partial(PatchEmbed, 6, 2),
    "patch_embed_overlap": functools.partial(PatchEmbed, 6, 3, stride=2, padding="same"),
    **EVERY_MIXER,
}

# One of each computation; the others are special cases of these.
EACH_KIND = {
    name: EVERY_LAYER[name]
    for name in (
        "patch_embed_overlap",
        "spatial_2d",
        "spatial_1d_even",
        "channel",
        "split",
        "split_shuffle",
        "stride_overlap",
        "token_mlp_gated",
        "token_linear_scaled",
        "channel_mlp",
        "spatial_gating_mlp",
    )
}


def kind_of(make):
    """Give the class of what `make` makes."""
    return getattr(make, "func", make)


def input_shape(make):
    """Give the shape of one image, channels last, with unknown sides where the layer takes any."""
    return SHAPE[1:] if kind_of(make) in FIXED_GRID else (None, None, SHAPE[-1])


for_each_kind = pytest.mark.parametrize("make", EACH_KIND.values(), ids=EACH_KIND)
for_every_mixer = pytest.mark.parametrize("make", EVERY_MIXER.values(), ids=EVERY_MIXER)
for_every_layer = pytest.mark.parametrize("make", EVERY_LAYER.values(), ids=EVERY_LAYER)
