"""The networks, and the table of their published configurations."""

from keras_mixers.models.conv_mixer import ConvMixer
from keras_mixers.models.features import feature_extractor, feature_pyramid
from keras_mixers.models.image_spec import ImageSpec
from keras_mixers.models.isotropic import IsotropicMixer, NetworkOptions, builder
from keras_mixers.models.mlp_mixers import MLPMixer, ResMLP, gMixer, gMLP
from keras_mixers.models.presets import (
    PRESETS,
    Preset,
    Published,
    create_model,
    get_preset,
    list_models,
    preprocess_input,
    register_preset,
)
from keras_mixers.models.split_mixer import (
    SplitMixerI,
    SplitMixerII,
    SplitMixerIII,
    SplitMixerIV,
    SplitMixerV,
    StrideMixer,
)

__all__ = [
    "PRESETS",
    "ConvMixer",
    "ImageSpec",
    "IsotropicMixer",
    "MLPMixer",
    "NetworkOptions",
    "Preset",
    "Published",
    "ResMLP",
    "SplitMixerI",
    "SplitMixerII",
    "SplitMixerIII",
    "SplitMixerIV",
    "SplitMixerV",
    "StrideMixer",
    "builder",
    "create_model",
    "feature_extractor",
    "feature_pyramid",
    "gMLP",
    "gMixer",
    "get_preset",
    "list_models",
    "preprocess_input",
    "register_preset",
]
