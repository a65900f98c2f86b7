"""The most memory that a subject takes, alone in a process: `measure_peak_memory` starts this file as one."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import keras

from keras_mixers.benchmark.subjects import make_subjects
from keras_mixers.benchmark.tasks import Task
from keras_mixers.benchmark.timing import warm_up
from keras_mixers.layers.device import device


def measure_peak_memory(subject: str, task: Task) -> float:
    """Returns the most memory, in millions of bytes, that a subject takes for a task, alone in a process.

    Raises:
        RuntimeError: if that process fails.
    """
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
        # PyTorch's process shall not hold another backend besides.
        "KERAS_BACKEND": "torch" if subject.startswith("torch") else keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", __name__, subject, json.dumps(asdict(task))]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"The process that measures the memory of {subject!r} at {task} failed:\n{child.stderr}")
    return float(child.stdout.split()[-1])


def peak_memory_of_this_process(subject: str, task: Task) -> float:
    """Lets a subject compute a few batches and returns the peak memory of this process in millions of bytes."""
    (alone,) = make_subjects([subject], task)
    warm_up(alone)
    if device() in ("cpu", "mps"):  # which share their memory
        return _peak_of_process() / 1e6
    if subject.startswith("torch") or keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def _peak_of_process() -> int:
    """Returns the most bytes that this process had in memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike ru_maxrss, which on Linux begins with the memory of the process that started this one.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    print(peak_memory_of_this_process(sys.argv[1], Task(**json.loads(sys.argv[2]))))
