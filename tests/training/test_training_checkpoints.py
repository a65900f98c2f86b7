"""Checkpoints are whole or not there, and a damaged one is named and skipped."""

import errno

import keras
import numpy as np
import pytest

from keras_mixers.training import AdamW
from keras_mixers.training.checkpoints import Position, last_checkpoint, write_checkpoint


@pytest.fixture
def model(rng):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.compile(AdamW(0.01), "mse", metrics=["mae"])
    model.fit(rng.normal(size=(8, 4)), rng.normal(size=(8, 3)), verbose=0)
    return model


def values(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in (*model.variables, *model.optimizer.variables)]


def test_restores_model_and_optimizer_to_the_bit(model, tmp_path, rng):
    expected = values(model)
    write_checkpoint(tmp_path, model, Position(2, 5), {"best": 0.5})
    model.fit(rng.normal(size=(8, 4)), rng.normal(size=(8, 3)), verbose=0)
    checkpoint = last_checkpoint(tmp_path)
    assert (checkpoint.position, checkpoint.notes) == (Position(2, 5), {"best": 0.5})
    assert checkpoint.versions["keras"] == keras.__version__
    assert {*checkpoint.versions} == {"keras_mixers", "keras", keras.backend.backend()}
    assert list(checkpoint.values["model"]) == sorted(variable.path for variable in model.variables)
    checkpoint.restore(model)
    for value, other in zip(values(model), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_keeps_the_last_two(model, tmp_path):
    for position in (Position(0, 7), Position(1), Position(1, 3), Position(10)):
        write_checkpoint(tmp_path, model, position, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch_0001_step_000003.npz",
        "epoch_0010_step_000000.npz",
    ]


def flipped(contents):
    middle = len(contents) // 2
    return contents[:middle] + bytes([contents[middle] ^ 255]) + contents[middle + 1 :]


@pytest.mark.parametrize(
    "damaged", [lambda contents: contents[:-40], flipped, lambda contents: b""], ids=["cut", "flipped", "empty"]
)
def test_a_damaged_one_is_named_and_the_one_before_it_used(damaged, model, tmp_path):
    write_checkpoint(tmp_path, model, Position(1), {"best": 1})
    path = write_checkpoint(tmp_path, model, Position(2), {"best": 2})
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint .*epoch_0002_step_000000.npz' is damaged .*before it is used"):
        assert last_checkpoint(tmp_path).notes == {"best": 1}


def test_there_may_be_none(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "absent") is None


def test_a_full_disk_leaves_the_earlier_one_and_nothing_else(model, tmp_path, monkeypatch):
    first = write_checkpoint(tmp_path, model, Position(1), {})

    def full(file, **arrays):
        file.write(b"a part of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"epoch_0002.*could not be written: No space left on device; the earlier ones"):
        write_checkpoint(tmp_path, model, Position(2), {})
    assert [*tmp_path.iterdir()] == [first]


def test_refuses_another_model(model, tmp_path):
    write_checkpoint(tmp_path, model, Position(1), {})
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.compile("adam", "mse")
    with pytest.raises(
        ValueError, match=r"is of another model: it has 6 variables and this one 2, .* resume with the recipe"
    ):
        last_checkpoint(tmp_path).restore(other)
