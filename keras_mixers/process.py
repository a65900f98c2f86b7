"""Settings of a process that was started for this library alone; the package imports this before any backend."""

import os
import sys
from pathlib import Path


def prepare_process() -> None:
    """Sets what TensorFlow and OpenMP read from the environment when they start, unless the user has set it.

    TensorFlow would print ten lines about itself. It uses oneDNN, which keeps its memory too, on CPUs with AVX512-VNNI
    only, though it is faster on others as well; where TensorFlow only feeds the images it needs none. PyTorch's threads
    would spin while they wait for one another: beside a process that computes, they then wait for a thread that has no
    core, and take ten times as long.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    computes = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", str(int(computes)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def is_own_process() -> bool:
    """Whether this process is `python -m keras_mixers` or `keras-mixers`."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # what Python has there while it looks for the module
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] == "keras_mixers"
    return Path(program).stem == "keras-mixers"


if is_own_process():
    prepare_process()
