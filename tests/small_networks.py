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

# Those that mix a fixed number of patches, a grid of 4 × 5.
MLP_SIZES = {"dim": 12, "blocks": 2, "patch_size": 2, "num_classes": 5, "input_shape": (8, 10, 3)}
MLP_BUILDERS = ("MLPMixer", "gMixer", "ResMLP", "gMLP")

for_every_builder = pytest.mark.parametrize("builder", BUILDERS)
for_every_mlp_builder = pytest.mark.parametrize("builder", MLP_BUILDERS)
for_all_builders = pytest.mark.parametrize("builder", [*BUILDERS, *MLP_BUILDERS])


def arguments_of(builder, **options):
    if builder not in MLP_BUILDERS:
        return {**SIZES, **BUILDERS[builder], **options}
    arguments = {**MLP_SIZES, **options}
    if options.get("data_format") == "channels_first" and "input_shape" not in options:
        arguments["input_shape"] = (3, 8, 10)
    return arguments


def small(builder="SplitMixerI", **options):
    return getattr(keras_mixers, builder)(**arguments_of(builder, **{"data_format": "channels_last", **options}))
