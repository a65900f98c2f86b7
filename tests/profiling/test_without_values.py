"""Shapes without values, and nothing left behind."""

import keras
import numpy as np
import pytest

import keras_mixers
from keras_mixers.profiling import profile, without_values


def test_costs_the_same_without_values():
    model = keras_mixers.SplitMixerI(8, 1, input_shape=(8, 8, 3), data_format="channels_last")
    shapes = without_values(keras_mixers.SplitMixerI, 8, 1, input_shape=(8, 8, 3), data_format="channels_last")
    assert profile(shapes) == profile(model)
    assert [weight.shape for weight in shapes.weights] == [weight.shape for weight in model.weights]


def test_the_weights_stay_without_values():
    """The end of a later scope without state gives values to all variables that were made without: not to these."""
    shapes = without_values(keras_mixers.SplitMixerI, 8, 1)
    with keras.StatelessScope():
        made_later = keras.layers.Dense(2)
        made_later.build((None, 3))
    assert np.asarray(keras.ops.convert_to_numpy(made_later.kernel)).shape == (3, 2)
    assert all(weight._value is None for weight in shapes.weights)


def test_errors_come_through():
    with pytest.raises(ValueError, match="dim must be"):
        without_values(keras_mixers.SplitMixerI, 0, 1)
