"""One row an epoch, with the learning rate of the epoch's last step."""

import csv
import errno
import os

import keras
import numpy as np
import pytest

from keras_mixers.training import HistoryWriter, TriangularSchedule, read_history


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_writes_what_fit_reports(policy, tmp_path):
    schedule = TriangularSchedule(0.1, epochs=5, steps_per_epoch=2)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=policy)])
    model.dtype_policy = keras.dtype_policies.get(policy)
    model.compile(
        keras.optimizers.AdamW(schedule), keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    x, y = np.random.default_rng(0).random((8, 3)), np.eye(2)[[0, 1] * 4]
    writer = HistoryWriter(tmp_path / "history.csv")
    logs = model.fit(x, y, batch_size=4, epochs=5, validation_data=(x, y), callbacks=[writer], verbose=0).history
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HistoryWriter.COLUMNS
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [float(row[key]) for row in rows] == pytest.approx(logs[key])
    assert all(float(row["seconds"]) > 0 for row in rows)
    if policy == "float32":  # float16's loss scaling skips steps, by design
        expected = [float(schedule(step)) for step in (1, 3, 5, 7, 9)]
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, abs=1e-7)


@pytest.mark.backend_independent
def test_earlier_epochs_are_kept_whole_if_they_cannot_be_written_again(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,0.5\n2,0.4\n")
    path.chmod(0o640)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            HistoryWriter(path, first_epoch=1).on_train_begin()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]
    HistoryWriter(path, first_epoch=1).on_train_begin()
    assert [(row["epoch"], row["loss"]) for row in read_history(path)] == [(1, 0.5)]
    assert path.stat().st_mode & 0o777 == 0o640
