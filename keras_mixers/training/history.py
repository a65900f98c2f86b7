"""One row an epoch, on disk as soon as the epoch is over."""

import csv
import time
from pathlib import Path
from typing import Any

import keras


class HistoryWriter(keras.callbacks.Callback):
    """Writes a CSV with one row an epoch: epoch, loss and accuracy, learning rate and seconds.

    The columns are `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate` (of the epoch's
    last step) and `seconds` (training and validation).

    Args:
        path: the file to write; an earlier one is replaced.

    Example:
        >>> import tempfile, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> path = Path(tempfile.mkdtemp(), "history.csv")
        >>> history = model.fit(np.zeros((4, 1)), np.zeros(4), verbose=0, callbacks=[HistoryWriter(path)])
        >>> path.read_text().splitlines()[0]
        'epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds'
    """

    COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        with self.path.open("w", newline="") as file:
            csv.DictWriter(file, self.COLUMNS).writeheader()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row: dict[str, Any] = {**(logs or {}), "epoch": epoch + 1}
        row["learning_rate"] = last_learning_rate(self.model.optimizer)
        row["seconds"] = round(time.perf_counter() - self.start, 3)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS, extrasaction="ignore").writerow(row)


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the step that `optimizer` took last."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # inside float16's loss scaling
    schedule = optimizer._learning_rate  # noqa: SLF001  (the public property is already that of the next step)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        step = keras.ops.convert_to_numpy(optimizer.iterations.value) - 1
        return float(keras.ops.convert_to_numpy(schedule(step)))
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
