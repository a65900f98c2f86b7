"""What a run does beside training: it keeps checkpoints and the best network, and stops a loss that is not a number.

Keras hands the loss to `on_train_batch_end` as a number, so a callback with that method makes the host wait for the
device at each step. These look before a batch instead, where nothing waits, and read the loss only when they need it.
"""

import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import keras
import numpy as np

from keras_mixers.training.checkpoints import Checkpoint, Position, checkpoint_paths, write_checkpoint

INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended
CHECK_EVERY = 50  # batches: a loss that is not a number stays in the running mean, and an epoch's end looks too


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch, every few minutes and when the run is asked to stop, never of a bad loss.

    A loss that is infinite or not a number ends the run. The running loss is read after the first batch of an epoch and
    after each 50 more, and before each checkpoint.

    Args:
        directory: where they are written.
        notes: a dictionary that is stored with each; whoever holds it may change it during the run.
        start: where the run was resumed.
        minutes: how often a checkpoint is written within an epoch.
        writes: whether it is this process, of several, that writes them.
        within_epochs: whether the running loss may be read, and checkpoints written, within an epoch.

    Attributes:
        stop_asked: the signal that asks for the end, 0 for none: after the batch a checkpoint is written, and
            `SystemExit` raised.
    """

    def __init__(
        self,
        directory: Path,
        notes: dict[str, Any],
        start: Position,
        minutes: float = 15,
        writes: bool = True,
        within_epochs: bool = True,
    ) -> None:
        super().__init__()
        self.directory, self.notes, self.start = directory, notes, start
        self.seconds, self.writes, self.within_epochs = minutes * 60, writes, within_epochs
        self.stop_asked = 0
        self.written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not batch:
            return
        step = self.start.step_at(self.epoch, batch)
        due = self.stop_asked or time.monotonic() - self.written > self.seconds
        if self.within_epochs and (due or batch % CHECK_EVERY == 1):
            self._check(self.model.get_metrics_result()["loss"], f"by step {step}")
            if due:
                self._write(Position(self.epoch, step))
        if self.stop_asked:
            self._stop(f"in epoch {self.epoch + 1} after {step} batches")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs["loss"], "by its last step")
        self._check(logs["val_loss"], "on the test images")
        self._write(Position(epoch + 1))
        if self.stop_asked:
            self._stop(f"after epoch {epoch + 1}")

    @contextmanager
    def stopping_when_asked(self) -> Iterator[None]:
        """Has a checkpoint written and the process end when the system (SIGTERM) or the user (Ctrl-C) asks for it."""
        if current_thread() is not main_thread():
            yield
            return

        def ask(signal_number: int, frame: Any) -> None:
            self.stop_asked = signal_number
            signal.signal(signal_number, before[signal_number])  # asked again, the process ends at once

        before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _check(self, loss: Any, where: str) -> None:
        if math.isfinite(loss := float(loss)):
            return
        kept = checkpoint_paths(self.directory)
        last = f"the last good weights are in {kept[-1].name!r}" if kept else "there is no checkpoint yet"
        raise FloatingPointError(
            f"The loss became {loss} in epoch {self.epoch + 1} {where}; {last}. Lower learning_rate, or set clip_norm."
        )

    def _stop(self, where: str) -> None:
        kept = checkpoint_paths(self.directory)
        remedy = f"--resume continues from {str(kept[-1])!r}" if kept else "there is no checkpoint yet"
        stopped = SystemExit(f"Stopped {where}; {remedy}.")
        if self.stop_asked == signal.SIGINT:
            print(f"\n{stopped}", file=sys.stderr)
            stopped.code = INTERRUPTED
        raise stopped

    def _write(self, position: Position) -> None:
        if self.writes:
            write_checkpoint(self.directory, self.model, position, self.notes)
        self.written = time.monotonic()


class RestoreMetrics(keras.callbacks.Callback):
    """Gives the metrics of an interrupted epoch the sums that they had; for the one epoch that is resumed."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        image, label = (
            np.zeros([1, *(size or 32 for size in shape[1:])], "float32")
            for shape in (self.model.input_shape, self.model.output_shape)
        )
        self.model.test_on_batch(image, label)  # TensorFlow has no metrics before it has seen a batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.checkpoint.restore_metrics(self.model)


class KeepBest(keras.callbacks.Callback):
    """Saves the network after each epoch that has the best test accuracy so far.

    It must come before Keras's `SwapEMAWeights`, which has the averaged weights in the network until the test ends.

    Args:
        path: the .keras file.
        notes: a dictionary in which `"best"` is kept, the best accuracy.
        writes: whether it is this process, of several, that saves.
    """

    def __init__(self, path: Path, notes: dict[str, Any], writes: bool = True) -> None:
        super().__init__()
        self.path, self.notes, self.writes = path, notes, writes

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        accuracy, best = float(logs["accuracy"]), self.notes["best"]
        if math.isfinite(logs["loss"]) and (best is None or accuracy > best):
            self.notes["best"] = accuracy
            if self.writes:
                save_model(self.model, self.path)


class KeepWeights(keras.callbacks.Callback):
    """Remembers the weights after an epoch: at its end, `model.fit` replaces them by their averages."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.values = [keras.ops.convert_to_numpy(weight).copy() for weight in self.model.trainable_variables]

    def put_back(self) -> None:
        """Gives the network these weights."""
        for weight, value in zip(self.model.trainable_variables, self.values, strict=True):
            weight.assign(value)


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a .keras file that is whole or not there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as directory:
        # Keras makes variables when it saves, which JAX and TensorFlow would share with all processes, of which only
        # this one saves. What is shared belongs to a thread, so another one does it.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(model.save, Path(directory, path.name)).result()
        os.replace(Path(directory, path.name), path)
