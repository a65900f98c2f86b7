"""PyTorch trains on one device of one process: Keras's trainer has no DistributedDataParallel."""

import os

from keras_mixers.training.devices import Devices


def find_devices(count: int | None) -> Devices:
    """Returns the one device, as `devices.find_devices` explains."""
    join_processes()
    if count not in (None, 1):
        raise ValueError(
            f"devices must be 1 on PyTorch, got devices={count}: Keras's trainer has no DistributedDataParallel; "
            "set KERAS_BACKEND to jax or tensorflow."
        )
    return Devices()


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Refuses several processes, such as those of `torchrun`."""
    if coordinator or processes or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "Several processes cannot train on PyTorch here: Keras's trainer has no DistributedDataParallel; set "
            "KERAS_BACKEND to jax or tensorflow."
        )
    return 0
