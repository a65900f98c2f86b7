"""JAX shares a run by `keras.distribution.DataParallel`, and between processes by `jax.distributed`."""

import os
import sys
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from keras_mixers.data import DataShard
from keras_mixers.training.devices import Devices, await_coordinator, check_count, check_processes

HEARTBEAT_SECONDS, JOINING_SECONDS = 30, 120


@dataclass(frozen=True)
class JaxDevices(Devices):
    """Devices of one or several processes; Keras distributes the batches."""

    def gather(self, numbers: tuple[int, ...]) -> Any:
        return np.asarray(process_allgather(np.array([numbers]))).reshape(-1, len(numbers))


def find_devices(count: int | None) -> Devices:
    """Returns the devices, as `devices.find_devices` explains."""
    process, processes, local = jax.process_index(), jax.process_count(), jax.local_device_count()
    names = keras.distribution.list_devices()
    local = check_count(count, local, only_all=processes > 1)
    names = names[:local] if processes == 1 else names
    if len(names) == 1:
        return Devices()
    parallel = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    return JaxDevices(DataShard(process, processes, len(names)), local, parallel.scope)


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Joins the other processes, as `devices.join_processes` explains."""
    coordinator = coordinator or _environment("JOB_ADDRESSES", "").split(",")[0] or None
    processes = _environment("NUM_PROCESSES") if processes is None else processes
    process = _environment("PROCESS_ID") if process is None else process
    described = check_processes(coordinator, processes, process)
    if described is None:
        return 0
    coordinator, processes, process = described
    # JAX would abort the process where others do not come, with a trace of its own instead of an exception.
    if process > 0:
        await_coordinator(coordinator, f"Process {process} of {processes}", JOINING_SECONDS)
    elif processes > 1:
        print(f"Process 0 of {processes} waits for the others for {JOINING_SECONDS} s at most.", file=sys.stderr)
    try:
        limits = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS, "initialization_timeout": JOINING_SECONDS}
        jax.distributed.initialize(coordinator, processes, process, **limits)
    except Exception as error:
        raise ConnectionError(f"Process {process} of {processes} could not join at {coordinator!r}: {error}") from error
    return process


def _environment(name: str, default: str | None = None) -> str | None:
    return os.environ.get(f"KERAS_DISTRIBUTION_{name}", default)  # as `keras.distribution.initialize` names them
