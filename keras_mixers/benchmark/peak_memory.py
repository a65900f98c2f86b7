"""The peak memory of a subject alone in a process: `measure_peak_memory` runs this file as one."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from keras_mixers import backends
from keras_mixers.benchmark.subjects import Task, make_subjects, warm_up


def measure_peak_memory(subject: str, task: Task) -> float:
    """Returns the peak memory of a subject for a task in millions of bytes, or raises a RuntimeError."""
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
        # PyTorch's process must not load another backend too.
        "KERAS_BACKEND": "torch" if subject.startswith("torch") else backends.NAME,
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
    return backends.peak_memory() / 1e6


if __name__ == "__main__":
    print(peak_memory_of_this_process(sys.argv[1], Task(**json.loads(sys.argv[2]))))
