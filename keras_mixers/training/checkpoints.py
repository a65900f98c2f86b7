"""A run that is killed goes on where it was: everything that it has learnt, in files that are whole or not there.

A checkpoint is one .npz file of numbers, without any pickled code: the variables of the model, of the optimiser and of
the metrics, and where the run stands. The zip format's checksums tell a file that was cut short or damaged.
"""

import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

NAME = re.compile(r"epoch_(\d+)_step_(\d+)\.npz")
KEPT = 2
INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands.

    Attributes:
        epoch: epochs that are complete.
        step: batches of the next one that are done.
    """

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        position: where the run stood.
        values: the variables of `"model"`, `"optimizer"` and `"metrics"`, in Keras's order.
        notes: what else the run needs to know, as JSON has it.
    """

    path: Path
    position: Position
    values: dict[str, list[np.ndarray]]
    notes: dict[str, Any]

    def restore(self, model: keras.Model) -> None:
        """Gives a compiled model, and its optimiser, the values they had.

        Raises:
            ValueError: if the model is another.
        """
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for part in ("model", "optimizer"):
            variables = _variables(model)[part]
            shapes = [value.shape for value in self.values[part]]
            if shapes != [tuple(variable.shape) for variable in variables]:
                raise ValueError(
                    f"The checkpoint {str(self.path)!r} is of another {part}: it has {len(shapes)} variables, or of "
                    f"other shapes, and this one {len(variables)}; resume with the recipe that wrote it."
                )
            _assign(variables, self.values[part])

    def restore_metrics(self, model: keras.Model) -> None:
        """Gives the metrics of an epoch that was broken off the sums they had; to be called when it begins."""
        _assign(_variables(model)["metrics"], self.values["metrics"])


def write_checkpoint(directory: str | Path, model: keras.Model, position: Position, notes: dict[str, Any]) -> Path:
    """Writes a checkpoint, and removes all but the last two.

    Raises:
        OSError: if it cannot be written; the earlier ones are still there.
    """
    directory = Path(directory)
    path = directory / f"epoch_{position.epoch:04d}_step_{position.step:06d}.npz"
    arrays = {
        f"{part}/{i:05d}": keras.ops.convert_to_numpy(variable)
        for part, variables in _variables(model).items()
        if part != "metrics" or position.step  # an epoch begins with empty metrics
        for i, variable in enumerate(variables)
    }
    arrays["notes"] = np.array(json.dumps(notes))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise OSError(
            f"The checkpoint {str(path)!r} could not be written: {error.strerror or error}; the earlier ones in that "
            "folder are whole, and the run goes on from them when it is resumed."
        ) from error
    for old in _paths(directory)[:-KEPT]:
        old.unlink()
    return path


def last_checkpoint(directory: str | Path) -> Checkpoint | None:
    """Returns the last whole checkpoint of a folder, None if there is none; warns of each that is damaged."""
    for path in reversed(_paths(Path(directory))):
        try:
            return _read(path)
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            warnings.warn(
                f"The checkpoint {str(path)!r} is damaged ({error}); the one before it is used.", stacklevel=2
            )
    return None


def replace_file(path: Path, write: Any) -> None:
    """Calls `write` with a new file, which takes the place of `path` once it is whole and on the disk."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    try:
        with file:
            if path.exists():
                shutil.copymode(path, file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)  # once it is closed: Windows replaces no open file
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> Checkpoint:
    values: dict[str, list[np.ndarray]] = {"model": [], "optimizer": [], "metrics": []}
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            part, _, _ = name.partition("/")
            if part in values:
                values[part].append(arrays[name])
        notes = json.loads(str(arrays["notes"]))
    epoch, step = map(int, NAME.fullmatch(path.name).groups())
    return Checkpoint(path, Position(epoch, step), values, notes)


def _paths(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.npz") if NAME.fullmatch(path.name))


def _variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    return {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "metrics": [variable for metric in model.metrics for variable in metric.variables],
    }


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch, every so many minutes, and when it is asked to stop.

    Args:
        directory: where they are written.
        notes: a dictionary that is stored with each; whoever holds it may change it during the run.
        minutes: how often a checkpoint is written within an epoch; infinity for never, not even if it is asked to stop.
        writes: whether it is this process, of several, that writes them.
        start: where the run begins.

    Attributes:
        stop_asked: the signal that asks for the end, 0 for none: after the batch a checkpoint is written, and
            `SystemExit` raised.
    """

    def __init__(
        self,
        directory: str | Path,
        notes: dict[str, Any],
        minutes: float = 15,
        writes: bool = True,
        start: Position | None = None,
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.notes = notes
        self.seconds = minutes * 60
        self.writes = writes
        self.start = start or Position()
        self.stop_asked = 0
        self.epoch = 0
        self.written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch
        self.first_step = self.start.step if epoch == self.start.epoch else 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        position = Position(self.epoch, self.first_step + batch + 1)
        if self.seconds < math.inf and (self.stop_asked or time.monotonic() - self.written > self.seconds):
            self._write(position)
        if self.stop_asked:
            self._stop(f"in epoch {position.epoch + 1} after {position.step} batches")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._write(Position(epoch + 1))
        if self.stop_asked:
            self._stop(f"after epoch {epoch + 1}")

    def _stop(self, where: str) -> None:
        kept = [str(path) for path in _paths(self.directory)]
        goes_on = f"--resume goes on from {kept[-1]!r}" if kept else "there is no checkpoint yet"
        stopped = SystemExit(f"Stopped {where}; {goes_on}.")
        if self.stop_asked == signal.SIGINT:
            print(f"\n{stopped}", file=sys.stderr)
            stopped.code = INTERRUPTED
        raise stopped

    def _write(self, position: Position) -> None:
        if self.writes:
            write_checkpoint(self.directory, self.model, position, self.notes)
        self.written = time.monotonic()
