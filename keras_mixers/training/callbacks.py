"""What a run does beside training: it keeps checkpoints and the best network, checks the loss and shows progress.

Keras hands the loss to `on_train_batch_end` as a number, so a callback with that method makes the host wait for the
device at each step. These look before a batch instead, where nothing waits, and read the loss only when they need it.
"""

import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, TextIO

import keras

from keras_mixers.environment import describe_environment
from keras_mixers.training.checkpoints import Position, checkpoint_paths, write_checkpoint
from keras_mixers.training.prepare import Prepared

INTERRUPTED = 130  # exit status of a program that Ctrl-C has ended
CHECK_EVERY = 50  # batches: a loss that is not a number stays in the running mean, and an epoch's end looks too


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch, every few minutes and when the run is asked to stop, never of a bad loss.

    A loss that is infinite or not a number ends the run. The running loss is read after the first batch of an epoch and
    after each 50 more, and before each checkpoint; within an epoch a checkpoint is written every `minutes`.
    """

    def __init__(self, run: Prepared, minutes: float = 15) -> None:
        super().__init__()
        self.run, self.directory, self.seconds = run, run.directory / "checkpoints", minutes * 60
        self.stop_asked = 0  # the signal that asks for the end
        self.written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch
        if self.run.position.step and epoch == self.run.position.epoch:  # the interrupted one
            self.run.checkpoint.restore(self.model, ("metrics",))
            self.run.devices.split_metrics(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not batch:
            return
        step, devices = self.run.position.step_at(self.epoch, batch), self.run.devices
        due, self.stop_asked = devices.agreed(time.monotonic() - self.written > self.seconds, self.stop_asked)
        due = due or self.stop_asked
        if devices.within_epochs and (due or batch % CHECK_EVERY == 1):
            devices.merge_metrics(self.model)
            self._check(self.model.get_metrics_result()["loss"], f"by step {step}")
            if due:
                self._write(Position(self.epoch, step))
            devices.split_metrics(self.model)
        if self.stop_asked:
            self._stop(f"in epoch {self.epoch + 1} after {step} batches")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs["loss"], "by its last step")
        self._check(logs["val_loss"], "on the test images")
        self._write(Position(epoch + 1))
        (self.stop_asked,) = self.run.devices.agreed(self.stop_asked)
        if self.stop_asked:
            self._stop(f"after epoch {epoch + 1}")

    @contextmanager
    def stopping_when_asked(self) -> Iterator[None]:
        """Writes a checkpoint and ends the process when the system (SIGTERM) or the user (Ctrl-C) asks for it.

        A signal that is ignored stays ignored, as Ctrl-C is for what a shell script starts in the background (`&`).
        """
        if current_thread() is not main_thread():
            yield
            return

        def ask(signal_number: int, frame: Any) -> None:
            self.stop_asked = signal_number
            signal.signal(signal_number, before[signal_number])  # asked again, the process ends at once

        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler or signal.SIG_DFL for number, handler in found.items() if handler != signal.SIG_IGN}
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
        if self.run.devices.writes:
            write_checkpoint(self.directory, self.model, position, self.run.notes)
        self.written = time.monotonic()


class KeepBest(keras.callbacks.Callback):
    """Saves the network after each epoch that has the best test accuracy so far.

    It must come before Keras's `SwapEMAWeights`, which has the averaged weights in the network until the test ends.
    """

    def __init__(self, run: Prepared) -> None:
        super().__init__()
        self.run = run

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        accuracy, best = float(logs["accuracy"]), self.run.notes["best"]
        if math.isfinite(logs["loss"]) and (best is None or accuracy > best):
            self.run.notes["best"] = accuracy
            if self.run.devices.writes:
                save_model(self.model, self.run.directory / "best.keras")


class Progress(keras.callbacks.Callback):
    """Shows, on standard error, one line that is updated in a terminal and one for each epoch that is over."""

    SECONDS = 0.5

    def __init__(self, run: Prepared, stream: TextIO | None = None) -> None:
        super().__init__()
        self.run, self.batches, self.stream = run, run.batches_per_epoch, stream or sys.stderr
        self.start, self.done, self.shown = None, 0, 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.start is not None:  # a run may be several calls of model.fit
            return
        self.start = time.perf_counter()
        run, environment = self.run, describe_environment()
        count = f"{run.train_images.count:,} images of {run.train_images.num_classes} classes"
        several = f"{run.devices.share.devices} x " if run.devices.share.devices > 1 else ""
        device = f"{environment.backend} on {several}{environment.gpu or environment.cpu}"
        epoch, step = run.position.epoch, run.position.step
        resumed = f", from epoch {epoch + 1}, batch {step + 1}" if epoch or step else ""
        self._print(f"{count}, {run.test_images.count:,} to test on; {device}; {run.directory}{resumed}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch, self.epoch_start = epoch, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.perf_counter()
        if batch and self.stream.isatty() and now - self.shown > self.SECONDS:
            self.shown = now
            figures = self.model.get_metrics_result() if self.run.devices.reads_alone else {}
            step = self.run.position.step_at(self.epoch, batch)
            self._show(batch, f"{step}/{self.batches} batches", figures, end="\r")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        batches = self.batches - self.run.position.step_at(epoch, 0)
        self._show(batches, f"{time.perf_counter() - self.epoch_start:.0f} s", logs or {}, end="\n")
        self.done += batches

    def _show(self, batches: int, where: str, figures: Mapping[str, Any], end: str) -> None:
        now, epochs = time.perf_counter(), self.run.recipe.epochs
        speed = batches * self.run.train_images.count / self.batches / (now - self.epoch_start)
        left = (epochs - self.epoch) * self.batches - self.run.position.step_at(self.epoch, batches)
        minutes, seconds = divmod(round(left * (now - self.start) / (self.done + batches)), 60)
        hours, minutes = divmod(minutes, 60)
        left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        figures = "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items())
        self._print(f"epoch {self.epoch + 1}/{epochs}  {where}  {figures}  {speed:,.0f} images/s  {left} left", end)

    def _print(self, text: str, end: str = "\n") -> None:
        erase = "\x1b[2K" if self.stream.isatty() else ""
        print(f"{erase}{text}", end=end, file=self.stream, flush=True)


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a .keras file that is whole or not there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as directory:
        # Keras makes variables when it saves. JAX and TensorFlow would share them with the other processes, which do
        # not save; sharing is set per thread, so another thread saves.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(model.save, Path(directory, path.name)).result()
        os.replace(Path(directory, path.name), path)
