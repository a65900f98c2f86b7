"""The schedule is np.interp at every step, and survives a `.keras` file."""

import keras
import numpy as np
import pytest

from keras_mixers.training import TriangularSchedule


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 8, 25, 100])
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 98])
def test_is_np_interp_at_every_step(epochs, steps_per_epoch):
    steps = np.arange(epochs * steps_per_epoch)
    t = (steps + 1) / steps_per_epoch
    corners = [0, 2 * epochs // 5, 4 * epochs // 5, epochs]
    expected = np.interp(t, corners, [0, 0.05, 0.05 / 20, 0])
    schedule = TriangularSchedule(0.05, epochs, steps_per_epoch)
    # Corners that fall together (under 5 epochs) have no value of their own, in np.interp neither.
    actual = keras.ops.convert_to_numpy(schedule(keras.ops.convert_to_tensor(steps)))
    apart = ~np.isin(t, [c for c in corners if corners.count(c) > 1])
    np.testing.assert_allclose(actual[apart], expected[apart], rtol=1e-4, atol=1e-7)


def test_is_what_the_optimizer_follows():
    schedule = TriangularSchedule(0.1, epochs=5, steps_per_epoch=2)
    assert float(schedule(3)) == pytest.approx(0.1)
    assert float(schedule(9)) == pytest.approx(0.0, abs=1e-8)
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = keras.optimizers.SGD(schedule)
    optimizer.build([variable])
    gradient = keras.ops.ones(1)
    for step in range(4):
        before = keras.ops.convert_to_numpy(variable.value).copy()
        optimizer.apply([gradient], [variable])
        moved = before - keras.ops.convert_to_numpy(variable.value)
        np.testing.assert_allclose(moved, float(schedule(step)), rtol=1e-5)


def test_round_trip():
    schedule = TriangularSchedule(0.05, 25, 98)
    config = keras.saving.serialize_keras_object(schedule)
    assert keras.saving.deserialize_keras_object(config).get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 5, 5), "max_learning_rate must be a positive number, got max_learning_rate=0.0"),
        ((0.1, 0, 5), "epochs must be .* got epochs=0"),
        ((0.1, 5, -1), "steps_per_epoch must be .* got steps_per_epoch=-1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        TriangularSchedule(*arguments)
