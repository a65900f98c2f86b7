"""What is kept of a run: the best network so far, and nothing that a diverged step has spoilt."""

import contextlib
import errno
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras

from keras_mixers.training.checkpoints import Checkpoints

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES}


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a .keras file that is whole or not there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as directory:
        # Keras makes variables when it saves, which JAX and TensorFlow would share with all processes, of which only
        # this one saves. What is shared belongs to a thread, so another one does it.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(model.save, Path(directory, path.name)).result()
        os.replace(Path(directory, path.name), path)


@contextlib.contextmanager
def naming_full_disk(directory: Path) -> Iterator[None]:
    """Has a file of a run that cannot be written end it with a sentence.

    Raises:
        OSError: if the disk is full, or does not let itself be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:  # others are told of where they happen
            raise
        raise OSError(
            f"The run in {str(directory)!r} cannot be written any more: {error.strerror}; its checkpoints are whole. "
            "Make room there, and go on with resume=True (--resume)."
        ) from error


class KeepBest(keras.callbacks.Callback):
    """Saves the network after each epoch that has the best test accuracy so far.

    Args:
        path: the .keras file.
        notes: a dictionary in which `"best"` is kept, the best accuracy.
        averages: the callback that swaps averaged weights in, if there are any: they are what is saved.
        writes: whether it is this process, of several, that saves.
    """

    def __init__(
        self,
        path: Path,
        notes: dict[str, Any],
        averages: Sequence[keras.callbacks.SwapEMAWeights],
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.path, self.notes, self.averages, self.writes = path, notes, averages, writes

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.notes["best"] is not None and logs["val_accuracy"] <= self.notes["best"]:
            return
        self.notes["best"] = float(logs["val_accuracy"])
        for averages in self.averages:
            averages.on_test_begin()
        if self.writes:
            save_model(self.model, self.path)
        for averages in self.averages:
            averages.on_test_end()


class KeepWeights(keras.callbacks.Callback):
    """Remembers the weights after an epoch: at its end, `model.fit` replaces them by their averages."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.values = [keras.ops.convert_to_numpy(weight).copy() for weight in self.model.trainable_variables]

    def put_back(self) -> None:
        """Gives the network these weights."""
        for weight, value in zip(self.model.trainable_variables, self.values, strict=True):
            weight.assign(value)


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends a run whose loss is infinite or not a number, before a checkpoint is written of it."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.checkpoints = checkpoints

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        first = self.checkpoints.start.step if self.epoch == self.checkpoints.start.epoch else 0
        self._check(logs["loss"], f"at step {first + batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs["val_loss"], "on the test images, at the end")

    def _check(self, loss: float, where: str) -> None:
        if math.isfinite(loss):
            return
        kept = sorted(path.name for path in self.checkpoints.directory.glob("epoch_*.npz"))
        last = f"the last good weights are in {kept[-1]!r}" if kept else "there is no checkpoint yet"
        raise FloatingPointError(
            f"The loss became {float(loss)} in epoch {self.epoch + 1} {where}; {last}. Lower learning_rate, or set "
            "clip_norm."
        )
