"""Writes and runs one export, in this process or, if another backend writes the format, in one of its own."""

import contextlib
import io
import os
import pickle
import re
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.export.format import Job, Run


class ExportError(RuntimeError):
    """A format could not be written, or what was written differs from the network."""


def carry_out(job: Job, model: keras.Model) -> tuple[np.ndarray, float]:
    """Writes the file, and returns its outputs and its seconds per image, or raises an `ExportError`."""
    backend = job.format.backend or backends.NAME
    if backend == backends.NAME and backends.device() == "cpu":
        return write_and_run(job, model)
    (job.folder / "job.pickle").write_bytes(pickle.dumps(job))
    model.save(job.folder / "model.keras")
    # Writing needs no accelerator, and must not take its memory from the backend that runs.
    on_cpu = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}
    environment = {**os.environ, **on_cpu, "KERAS_BACKEND": backend}
    if backend == "tensorflow":  # the command line switches oneDNN off, for a TensorFlow that only feeds images
        environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    code = "import sys; from keras_mixers.export.job import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(job.folder), job.name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ExportError((done.stderr.strip() or f"its process ended with status {done.returncode}").splitlines()[-1])
    return np.load(job.folder / "outputs.npy"), float((job.folder / "latency.txt").read_text())


def write_and_run(job: Job, model: keras.Model) -> tuple[np.ndarray, float]:
    """Does in this process what `carry_out` does."""
    job.target.parent.mkdir()
    images = job.images()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the converters' progress
            warnings.simplefilter("ignore")
            job.format.write(model, job)
            run = job.format.open(job.target)
            return run_in_batches(run, images, job.batch_size), latency(run, images[:1].repeat(job.batch_size or 1, 0))
    except Exception as error:  # whatever a converter raises
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"The network could not be written as {job.name}: {reason.strip().rstrip('.')}.") from error


def run_in_batches(run: Run, images: np.ndarray, batch_size: int | None) -> np.ndarray:
    """Returns the outputs for all images; for a fixed batch size the last batch is filled up."""
    size = batch_size or 64
    outputs = []
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        missing = 0 if batch_size is None else size - len(batch)
        outputs.append(run(np.concatenate([batch, batch[:1].repeat(missing, 0)]))[: len(batch)])
    return np.concatenate(outputs)


def latency(run: Run, images: np.ndarray, seconds: float = 1.0) -> float:
    """Returns the median seconds of a call, measured for about `seconds`."""
    for _ in range(3):
        run(images)
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(folder: str, name: str) -> None:
    """Carries out the job of a folder in a process of its own, and ends the process with one sentence on failure."""
    folder = Path(folder)
    try:
        job = pickle.loads((folder / "job.pickle").read_bytes())
        model = keras.models.load_model(folder / "model.keras", compile=False)
    except Exception as error:
        unknown = re.search(r"Could not locate class '\w+'", str(error))
        reason = unknown[0] if unknown else str(error).splitlines()[0].rstrip(".")
        sys.exit(
            f"The process that writes {name} cannot load the network ({reason}); set "
            f"KERAS_BACKEND={backends.NAME} and export it where its classes are known."
        )
    try:
        outputs, seconds = write_and_run(job, model)
    except ExportError as error:
        sys.exit(str(error))
    np.save(folder / "outputs.npy", outputs)
    (folder / "latency.txt").write_text(repr(seconds))
