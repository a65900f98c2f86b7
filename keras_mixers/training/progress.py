"""How far a run is, how fast, and when it will be done."""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import keras

from keras_mixers.training.checkpoints import Position


class Progress(keras.callbacks.Callback):
    """Shows a line that is renewed in a terminal, and one line for each epoch that is over.

    Args:
        images: number of images in an epoch.
        batches: number of batches in an epoch.
        epochs: number of epochs of the whole run.
        start: where the run was resumed.
        within_epochs: whether the running metrics may be read within an epoch; they are, twice a second at most.
        stream: where it is shown; standard error by default.
    """

    SECONDS = 0.5

    def __init__(
        self,
        images: int,
        batches: int,
        epochs: int,
        start: Position,
        within_epochs: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__()
        self.images, self.batches, self.epochs, self.stream = images, batches, epochs, stream or sys.stderr
        self.position, self.within_epochs = start, within_epochs
        self.start, self.done, self.shown = None, 0, 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.start is None:  # a run may be several calls of model.fit
            self.start = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch, self.epoch_start = epoch, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.perf_counter()
        if batch and self.stream.isatty() and now - self.shown > self.SECONDS:
            self.shown = now
            figures = self.model.get_metrics_result() if self.within_epochs else {}
            step = self.position.step_at(self.epoch, batch)
            self._show(batch, f"{step}/{self.batches} batches", figures, end="\r")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        batches = self.batches - self.position.step_at(epoch, 0)
        self._show(batches, f"{time.perf_counter() - self.epoch_start:.0f} s", logs or {}, end="\n")
        self.done += batches

    def _show(self, batches: int, where: str, figures: Mapping[str, Any], end: str) -> None:
        """Shows a line after `batches` batches of this epoch."""
        now = time.perf_counter()
        speed = batches * self.images / self.batches / (now - self.epoch_start)
        left = (self.epochs - self.epoch) * self.batches - self.position.step_at(self.epoch, batches)
        left = clock(left * (now - self.start) / (self.done + batches))
        figures = "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items())
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
