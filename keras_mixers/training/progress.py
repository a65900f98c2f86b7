"""How far a run is, how fast, and when it will be done."""

import sys
import time
from typing import TextIO

import keras

from keras_mixers.training.checkpoints import Checkpoints


class Progress(keras.callbacks.Callback):
    """Shows a line that is renewed in a terminal, and one line for each epoch that is over.

    Args:
        images: number of images in an epoch.
        batches: number of batches in an epoch.
        epochs: number of epochs of the whole run.
        checkpoints: where this part of the run begins.
        stream: where it is shown; standard error by default.
    """

    SECONDS = 0.5

    def __init__(
        self, images: int, batches: int, epochs: int, checkpoints: Checkpoints, stream: TextIO | None = None
    ) -> None:
        super().__init__()
        self.images, self.batches, self.epochs, self.stream = images, batches, epochs, stream or sys.stderr
        self.checkpoints = checkpoints
        self.start, self.done, self.shown = None, 0, 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.start is None:  # a run may be several calls of model.fit
            self.start = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch, self.epoch_start, self.epoch_done = epoch, time.perf_counter(), 0
        start = self.checkpoints.start
        self.first_step = start.step if epoch == start.epoch else 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.done += 1
        self.epoch_done += 1
        now = time.perf_counter()
        if self.stream.isatty() and now - self.shown > self.SECONDS:
            self.shown = now
            self._show(f"{self.first_step + batch + 1}/{self.batches} batches", logs, end="\r")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._show(f"{time.perf_counter() - self.epoch_start:.0f} s", logs, end="\n")

    def _show(self, where: str, logs: dict[str, float] | None, end: str) -> None:
        seconds = time.perf_counter() - self.epoch_start
        speed = self.epoch_done * self.images / self.batches / seconds
        left = (self.epochs - self.epoch) * self.batches - self.first_step - self.epoch_done
        left = clock(left * (time.perf_counter() - self.start) / self.done)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        text = f"epoch {self.epoch + 1}/{self.epochs}  {where}  {figures}  {speed:,.0f} images/s  {left} left"
        erase = "\x1b[2K" if self.stream.isatty() else ""
        print(f"{erase}{text}", end=end, file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Writes seconds as hours, minutes and seconds.

    Example:
        >>> clock(59.7), clock(3723)
        ('1:00', '1:02:03')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
