"""The devices, and the processes, that train one network: each computes its part of every batch.

Gradients are averaged and norms see the whole batch, so that a run does not depend on how many devices there are. Each
backend has its own `find_devices` and `join_processes`, in `devices_on_BACKEND.py`; those below call them.
"""

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import keras

from keras_mixers import backends
from keras_mixers.data import DataShard

# What JAX, TensorFlow, Gloo and NCCL write when a peer is gone; they share no class of exceptions.
LOST = re.compile(
    r"gloo|nccl|heartbeat|collective|unavailable|coordination service|socket closed|"
    r"connection (reset|refused|closed|aborted)",
    re.IGNORECASE,
)
ENGINES = {"jax", "jaxlib", "tensorflow"}  # whose exceptions these are
OWN_FAULTS = {"InvalidArgumentError", "NotFoundError", "ResourceExhaustedError"}  # such as an image that is damaged


@dataclass(frozen=True)
class Devices:
    """What a run is trained on: here one device of one process; backends that share runs override the rest.

    Attributes:
        share: the part of each batch that this process reads.
        local: number of devices of this process.
        scope: makes the context in which the network is made and trained.
        accumulates: whether gradients of several batches can be averaged for one step.
        within_epochs: whether checkpoints can be written within an epoch.
        reads_alone: whether one process can read the running metrics without the others.
    """

    share: DataShard = DataShard()
    local: int = 1
    scope: Callable[[], AbstractContextManager] = contextlib.nullcontext
    accumulates: bool = True
    within_epochs: bool = True
    reads_alone: bool = True

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.share.process == 0

    def distributed(self, batches: Any) -> Any:
        """Returns the batches of this process as `model.fit` takes them on these devices."""
        return batches

    def repeated(self, batches: Any) -> tuple[Any, int | None]:
        """Returns the test batches as `model.fit` takes them again and again, and the steps to tell it, if any."""
        return batches, None

    def prepare(self, model: keras.Model) -> None:
        """Makes a compiled model ready for Keras's trainer on these devices."""

    def agreed(self, *numbers: int) -> tuple[int, ...]:
        """Returns the largest number that any process has in each place; where processes need not agree, their own."""
        return numbers

    def merge_metrics(self, model: keras.Model) -> None:
        """Gives each process the metrics of all images so far, where it has those of its own."""

    def split_metrics(self, model: keras.Model) -> None:
        """Undoes `merge_metrics`, after which merging gives the same again."""

    def gather(self, numbers: tuple[int, ...]) -> Any:
        """Returns the numbers of all processes, a row of each."""
        return [numbers]

    def check_agreement(self, what: str, numbers: tuple[int, ...], advice: str) -> None:
        """Raises a ValueError, in all processes, if they do not have the same numbers."""
        if self.share.processes == 1:
            return
        found = sorted({tuple(map(int, row)) for row in self.gather(numbers)})
        if len(found) > 1:
            raise ValueError(f"The processes of this run have different {what}, {found}; {advice}.")

    @contextlib.contextmanager
    def naming_lost_processes(self) -> Iterator[None]:
        """Raises one clear ConnectionError where a backend's error says that another process is lost."""
        try:
            yield
        except Exception as error:
            if self.share.processes == 1 or not (self.is_of_engine(error) and LOST.search(str(error))):
                raise
            raise ConnectionError(self.lost) from error

    def is_of_engine(self, error: Exception) -> bool:
        """Whether an error comes from what processes talk by."""
        kind = type(error)
        return kind.__module__.partition(".")[0] in ENGINES and kind.__name__ not in OWN_FAULTS

    @property
    def lost(self) -> str:
        """What a process says that has lost another one."""
        return (
            f"Process {self.share.process} of {self.share.processes} lost another one, which has ended or cannot "
            "be reached (see what that one printed); start all of them again with resume=True (--resume)."
        )


def find_devices(count: int | None = None) -> Devices:
    """Returns `count` of this machine's accelerators, or of its CPU devices where it has none; all by default.

    Raises:
        ValueError: if there are fewer, or the backend trains on one only.
    """
    return _of_backend().find_devices(count)


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Joins the other processes of a run, on this machine or on others; to be called before anything is computed.

    On JAX and PyTorch, each process is told where process 0 listens, how many there are and which it is, by arguments
    or by the environment: on JAX `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `KERAS_DISTRIBUTION_NUM_PROCESSES` and
    `KERAS_DISTRIBUTION_PROCESS_ID`, on PyTorch what `torchrun` sets. On TensorFlow the environment's `TF_CONFIG` says
    all of it. Where none of these is there, nothing happens. On PyTorch each process computes on one GPU of its
    machine, that of its number there.

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
    return _of_backend().join_processes(coordinator, processes, process)


def check_count(count: int | None, available: int, only_all: bool = False) -> int:
    """Returns how many of a process's devices to use, all by default; several processes can only use all of them."""
    if count is None:
        return available
    if only_all and count != available:
        raise ValueError(f"devices must be all {available} of each process where there are several, got {count!r}.")
    if not isinstance(count, int) or not 1 <= count <= available:
        raise ValueError(f"devices must be a whole number from 1 to {available}, as many as there are, got {count!r}.")
    return count


def check_processes(
    coordinator: str | None, processes: int | str | None, process: int | str | None
) -> tuple[str, int, int] | None:
    """Returns what describes the processes of a run, None where nothing does; refuses what is incomplete or wrong."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
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
    return coordinator, processes, process


def await_coordinator(coordinator: str, who: str, seconds: float) -> None:
    """Returns when something listens at the coordinator's address; raises a ConnectionError after `seconds`."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"{who} found nobody at {coordinator!r} for {seconds} s ({error}); start process 0 there, or "
                    "correct the address."
                ) from error
            time.sleep(0.1)


def _of_backend() -> ModuleType:
    return import_module(f"keras_mixers.training.devices_on_{backends.NAME}")
