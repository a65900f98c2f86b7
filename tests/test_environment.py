"""What others take of a machine."""

import pytest

from keras_mixers.environment import TICKS, load_of_others


def test_load_is_that_of_others():
    assert load_of_others(None, None, 2) is None
    assert load_of_others(10, 12 + TICKS, 2) == pytest.approx(1)
    assert load_of_others(10, 10, 2) == 0
