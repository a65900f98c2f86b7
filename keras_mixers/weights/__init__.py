"""Weights of PyTorch networks and of files and hubs, into models and out of them."""

from keras_mixers.weights.hub import download
from keras_mixers.weights.packaged import WeightsCard, packaged_weights, read_card
from keras_mixers.weights.sources import load_weights
from keras_mixers.weights.state_dicts import load_torch_weights, to_torch_state_dict

__all__ = [
    "WeightsCard",
    "download",
    "load_torch_weights",
    "load_weights",
    "packaged_weights",
    "read_card",
    "to_torch_state_dict",
]
