"""One row per epoch, on disk as soon as the epoch is over."""

import csv
import io
import time
from pathlib import Path

import keras

from keras_mixers.training.checkpoints import replace_file


class HistoryWriter(keras.callbacks.Callback):
    """Writes a CSV with one row per epoch.

    The columns are `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate` (of the epoch's
    last step) and `seconds` (training and validation).

    Args:
        path: the file to write; an earlier one is replaced.
        first_epoch: how many epochs of an earlier file are kept, for a run that is resumed.

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

    def __init__(self, path: str | Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = Path(path)
        self.first_epoch = first_epoch
        self.begun = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.begun:  # a run of several calls of model.fit
            return
        self.begun = True
        kept = read_history(self.path)[: self.first_epoch] if self.first_epoch else []
        if not kept:
            self.path.unlink(missing_ok=True)
            self.path.touch()  # as any new file may be read, which a temporary one may not
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        replace_file(self.path, lambda file: file.write(text.getvalue().encode()))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = round(time.perf_counter() - self.start, 3)
        row = {"epoch": epoch + 1, "learning_rate": _last_learning_rate(self.model.optimizer), "seconds": seconds}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS, extrasaction="ignore").writerow({**(logs or {}), **row})


def read_history(path: str | Path) -> list[dict[str, float]]:
    """Returns the rows of a CSV that `HistoryWriter` wrote, each a dictionary of numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such CSV.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no history at {str(path)!r}; train writes history.csv.")
    try:
        with Path(path).open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no history of a run: it must have a number for each epoch.") from error


def _last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # inside float16's loss scaling
    # Keras's public properties are already those of the next step, and count steps where the schedule counts batches.
    schedule, batches = optimizer._learning_rate, optimizer._iterations
    scheduled = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    rate = schedule(keras.ops.convert_to_numpy(batches) - 1) if scheduled else optimizer.learning_rate
    return float(keras.ops.convert_to_numpy(rate))
