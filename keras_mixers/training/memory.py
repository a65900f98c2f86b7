"""The memory of a process that trains on a CPU."""

import ctypes
import sys

import keras

from keras_mixers.layers.device import device

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_memory() -> bool:
    """Has this process keep the memory that it was given, where PyTorch trains on a CPU under Linux.

    Otherwise the C library gives every large feature map back to the system as soon as it is not needed, and has the
    next one provided, and cleared, anew: that takes longer than to compute it. Networks of JAX and TensorFlow manage
    their memory themselves.

    Returns:
        Whether that was done.
    """
    if not (keras.backend.backend() == "torch" and device() == "cpu" and sys.platform == "linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
