"""ConvMixer, SplitMixer and the MLP-Mixer family for Keras 3, on JAX, TensorFlow and PyTorch."""

from keras_mixers import process  # noqa: F401  # isort: skip  # first: backends read what it sets
from keras_mixers import layers, training, visualize
from keras_mixers.export import export_model, fold, read_metadata
from keras_mixers.models import (
    ConvMixer,
    IsotropicMixer,
    MLPMixer,
    ResMLP,
    SplitMixerI,
    SplitMixerII,
    SplitMixerIII,
    SplitMixerIV,
    SplitMixerV,
    StrideMixer,
    create_model,
    feature_extractor,
    feature_pyramid,
    get_preset,
    gMixer,
    gMLP,
    list_models,
    preprocess_input,
)
from keras_mixers.profiling import profile
from keras_mixers.weights import load_torch_weights, to_torch_state_dict

__version__ = "0.1.0"

__all__ = [
    "ConvMixer",
    "IsotropicMixer",
    "MLPMixer",
    "ResMLP",
    "SplitMixerI",
    "SplitMixerII",
    "SplitMixerIII",
    "SplitMixerIV",
    "SplitMixerV",
    "StrideMixer",
    "create_model",
    "export_model",
    "feature_extractor",
    "feature_pyramid",
    "gMLP",
    "gMixer",
    "get_preset",
    "fold",
    "layers",
    "list_models",
    "load_torch_weights",
    "preprocess_input",
    "profile",
    "read_metadata",
    "to_torch_state_dict",
    "training",
    "visualize",
]
