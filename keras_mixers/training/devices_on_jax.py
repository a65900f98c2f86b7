"""JAX shares a run by `keras.distribution.DataParallel`, and between processes by `jax.distributed`."""

import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from keras_mixers.data import DataShard
from keras_mixers.training.devices import Devices, check_count

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
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return 0
    if missing:
        together = "coordinator, processes and process must be given together"
        raise ValueError(f"{together}, but {' and '.join(missing)} is not there.")
    if not all(re.fullmatch(r"\d+", str(value)) for value in (processes, process)):
        got = f"processes={processes!r} and process={process!r}"
        raise ValueError(f"processes and process must be whole numbers, got {got}.")
    processes, process = int(processes), int(process)
    if not 0 <= process < processes:
        raise ValueError(f"process must be in 0 to {processes - 1}, got process={process}.")
    if not re.fullmatch(r".+:\d+", coordinator) or int(coordinator.rpartition(":")[2]) >= 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, such as 10.0.0.1:8476, got coordinator={coordinator!r}.")
    # JAX would abort the process where others do not come, with a trace of its own instead of an exception.
    if process > 0:
        _await_coordinator(coordinator, f"Process {process} of {processes}")
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


def _await_coordinator(coordinator: str, who: str) -> None:
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + JOINING_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"{who} found nobody at {coordinator!r} for {JOINING_SECONDS} s ({error}); start process 0 there, "
                    "or correct the address."
                ) from error
            time.sleep(0.1)
