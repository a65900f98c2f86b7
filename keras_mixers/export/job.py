"""One file is written and opened again, in this process or, if another backend writes the format, in one of its own."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.export.formats import FORMATS
from keras_mixers.export.runtimes import latency, run_in_batches


class ExportError(RuntimeError):
    """A format could not be written, or what was written differs from the network."""


@dataclass(frozen=True)
class Job:
    """What is to be written. The folder holds `images.npy`, on which the file is tried, and what is made on the way.

    Attributes:
        format: a key of `FORMATS`.
        folder: a folder for this job alone.
        name: of the file; it is written into `folder / "written"`.
        input_shape: of a batch of images, None for what may vary.
        example_size: height and width, where these may vary, of the images on which it is tried.
        output: what the network gives, the name of the output.
        raw: whether it takes pixels from 0 to 255.
        quantization: one that the format has, or None.
        integer_input: whether an eight-bit network takes integers.
        integer_output: whether it gives integers.
        metadata: what the file says about itself.
    """

    format: str
    folder: Path
    name: str
    input_shape: tuple[int | None, ...]
    example_size: int
    output: str
    raw: bool = False
    quantization: str | None = None
    integer_input: bool = False
    integer_output: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Path:
        return self.folder / "written" / self.name

    def representative(self) -> Iterator[np.ndarray]:
        """Gives the images by which the ranges of integers are chosen, in batches that the network takes."""
        images, size = np.load(self.folder / "representative.npy"), self.input_shape[0] or 1
        for first in range(0, len(images), size):
            yield np.resize(images[first : first + size], (size, *images.shape[1:]))  # the last one is filled up

    def carry_out(self, model: keras.Model) -> tuple[np.ndarray, float]:
        """Writes the file, and returns the outputs that it gives and the seconds that it takes for one image.

        Raises:
            ExportError: if the format cannot be written or opened.
        """
        backend = FORMATS[self.format].backend
        if backend in (None, backends.NAME) and backends.device() == "cpu":
            return self.write_and_run(model)
        (self.folder / "job.json").write_text(json.dumps({**asdict(self), "folder": str(self.folder)}))
        model.save(self.folder / "model.keras")
        # Writing takes no accelerator, and must not take the memory of one from the backend that runs.
        on_cpu = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}
        environment = {**os.environ, **on_cpu, "KERAS_BACKEND": backend or backends.NAME}
        if backend == "tensorflow":  # the command line switches oneDNN off where TensorFlow only feeds the images
            environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "keras_mixers.export.job", str(self.folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ExportError((done.stderr.strip() or "its process ended without a word").splitlines()[-1])
        return np.load(self.folder / "outputs.npy"), float((self.folder / "latency.txt").read_text())

    def write_and_run(self, model: keras.Model) -> tuple[np.ndarray, float]:
        """Does in this process what `carry_out` does."""
        self.target.parent.mkdir()
        images = np.load(self.folder / "images.npy")
        try:
            with quiet():
                _function(FORMATS[self.format].write)(model, self)
                run = _function(FORMATS[self.format].open)(self.target)
                size = self.input_shape[0]
                return run_in_batches(run, images, size), latency(run, images[:1].repeat(size or 1, 0))
        except Exception as error:  # whatever a converter raises
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ExportError(
                f"The network could not be written as {self.format}: {reason.strip().rstrip('.')}."
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the converters' progress and their warnings from the user."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _function(path: str) -> Callable:
    module, _, name = path.partition(":")
    return getattr(import_module(f"keras_mixers.export.{module}"), name)


def main(folder: str) -> int:
    """Carries out the job in a folder."""
    folder = Path(folder)
    values = json.loads((folder / "job.json").read_text())
    job = Job(**{**values, "folder": folder, "input_shape": tuple(values["input_shape"])})
    try:
        try:
            model = keras.models.load_model(folder / "model.keras", compile=False)
        except Exception as error:
            unknown = re.search(r"Could not locate class '\w+'", str(error))
            reason = unknown[0] if unknown else str(error).splitlines()[0].rstrip(".")
            raise ExportError(
                f"The process that writes {job.format} cannot load the network ({reason}); set "
                f"KERAS_BACKEND={backends.NAME} and export it where its classes are known."
            ) from error
        outputs, seconds = job.write_and_run(model)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    np.save(folder / "outputs.npy", outputs)
    (folder / "latency.txt").write_text(repr(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
