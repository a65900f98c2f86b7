"""Several processes, on one machine or on many, become one run."""

import functools
import os
import re
import socket
import sys
import time
from typing import Any

import keras

HEARTBEAT_SECONDS, JOINING_SECONDS = 30, 120
# Keras's names, those of `keras.distribution.initialize`.
COORDINATOR, PROCESSES, PROCESS = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Joins the other processes of a run, on this machine or on others; to be called before anything is computed.

    On JAX, each process is told where process 0 listens, how many there are and which it is, by arguments or by the
    environment: `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `KERAS_DISTRIBUTION_NUM_PROCESSES` and
    `KERAS_DISTRIBUTION_PROCESS_ID`. On TensorFlow the environment's `TF_CONFIG` says all of it. Where none of these is
    there, nothing happens.

    Args:
        coordinator: address of process 0 and a free port, such as `"10.0.0.1:8476"`.
        processes: number of processes.
        process: number of this process, from 0.

    Returns:
        The number of this process.

    Raises:
        ValueError: if something is missing, or the backend has nothing for it.
        ConnectionError: if the other processes do not come.

    Example:
        >>> join_processes()
        0
    """
    backend = keras.backend.backend()
    if backend == "torch":
        if coordinator or processes or int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError(
                "Several processes cannot train on PyTorch here: Keras's trainer has no DistributedDataParallel; set "
                "KERAS_BACKEND to jax or tensorflow."
            )
        return 0
    if backend == "tensorflow":
        if coordinator or processes:
            raise ValueError(
                "On TensorFlow, processes are described by the environment variable TF_CONFIG, not by coordinator, "
                "processes and process; see tensorflow.org/guide/distributed_training."
            )
        if "TF_CONFIG" in os.environ:
            return task(multi_worker_strategy())[0]
        return 0
    coordinator = coordinator or os.environ.get(COORDINATOR, "").split(",")[0] or None
    processes = os.environ.get(PROCESSES) if processes is None else processes
    process = os.environ.get(PROCESS) if process is None else process
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return 0
    if missing:
        raise ValueError(
            f"coordinator, processes and process must be given together, but {' and '.join(missing)} is not there."
        )
    try:
        processes, process = int(processes), int(process)
    except ValueError as error:
        raise ValueError(
            f"processes and process must be whole numbers, got processes={processes!r} and process={process!r}."
        ) from error
    if not 0 <= process < processes:
        raise ValueError(f"process must be in 0 to {processes - 1}, got process={process}.")
    if not re.fullmatch(r".+:\d+", coordinator) or int(coordinator.rpartition(":")[2]) >= 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, such as 10.0.0.1:8476, got coordinator={coordinator!r}.")
    # JAX would abort the process where others do not come, with a trace of its own instead of an exception.
    if process > 0:
        _await_coordinator(coordinator, f"Process {process} of {processes}")
    elif processes > 1:
        print(f"Process 0 of {processes} waits for the others for {JOINING_SECONDS} s at most.", file=sys.stderr)
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=JOINING_SECONDS,
        )
    except Exception as error:
        raise ConnectionError(f"Process {process} of {processes} could not join at {coordinator!r}: {error}") from error
    return process


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


@functools.cache
def multi_worker_strategy() -> Any:
    """Returns the one strategy of this process, as TF_CONFIG describes it."""
    import tensorflow as tf

    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"TF_CONFIG does not describe the processes of a run ({error}), got TF_CONFIG={os.environ['TF_CONFIG']!r}; "
            "see tensorflow.org/guide/distributed_training."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            "TF_CONFIG is set, but TensorFlow has computed something already; call "
            "keras_mixers.training.join_processes() first."
        ) from error


def task(strategy: Any) -> tuple[int, int]:
    """Returns the number of this process and how many there are, as TF_CONFIG says: a chief comes before the workers.

    Args:
        strategy: a `tf.distribute.MultiWorkerMirroredStrategy`.
    """
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    before = chiefs if resolver.task_type == "worker" else 0
    return before + (resolver.task_id or 0), max(chiefs + workers, 1)
