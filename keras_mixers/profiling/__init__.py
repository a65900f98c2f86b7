"""What a network costs: parameters and multiply-accumulates, counted without running it."""

from keras_mixers.profiling.profile import LayerProfile, Profile, profile
from keras_mixers.profiling.without_values import without_values

__all__ = ["LayerProfile", "Profile", "profile", "without_values"]
