"""A small network of every builder, whose arguments `options` replace or add to."""

import pytest

import keras_mixers

SIZES = {"dim": 12, "kernel_size": 3, "patch_size": 2, "num_classes": 5}
BUILDERS = {
    "ConvMixer": {"depth": 2},
    "SplitMixerI": {"blocks": 2},
    "SplitMixerII": {"blocks": 2, "segments": 3},
    "SplitMixerIII": {"blocks": 2, "segments": 3},
    "SplitMixerIV": {"blocks": 2, "segments": 5},  # 2, 2, 2, 2 and 4 channels
    "SplitMixerV": {"blocks": 2, "ratio": 3 / 5},  # 7 channels, from 0 and from 5
    "StrideMixer": {"blocks": 2, "channel_kernel_size": 6, "channel_stride": 2},
}

for_every_builder = pytest.mark.parametrize("builder", BUILDERS)


def arguments_of(builder, **options):
    return {**SIZES, **BUILDERS[builder], **options}


def small(builder="SplitMixerI", **options):
    return getattr(keras_mixers, builder)(**arguments_of(builder, **{"data_format": "channels_last", **options}))
