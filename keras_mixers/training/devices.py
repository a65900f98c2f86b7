"""The devices, and the processes, that train one network: each computes its part of every batch.

Gradients are averaged and norms see the whole batch, so that a run does not depend on how many devices there are. Each
backend has its own `find_devices` and `join_processes`, in `devices_on_BACKEND.py`; those below call them.
"""

import contextlib
import re
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
        within_epochs: whether one process can read the running metrics without the others.
    """

    share: DataShard = DataShard()
    local: int = 1
    scope: Callable[[], AbstractContextManager] = contextlib.nullcontext
    accumulates: bool = True
    within_epochs: bool = True

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
            kind = type(error)
            by_engine = kind.__module__.partition(".")[0] in ENGINES and kind.__name__ not in OWN_FAULTS
            if self.share.processes == 1 or not (by_engine and LOST.search(str(error))):
                raise
            raise ConnectionError(
                f"Process {self.share.process} of {self.share.processes} lost another one, which has ended or cannot "
                "be reached (see what that one printed); start all of them again with resume=True (--resume)."
            ) from error


def find_devices(count: int | None = None) -> Devices:
    """Returns `count` of this machine's accelerators, or of its CPU devices where it has none; all by default.

    Raises:
        ValueError: if there are fewer, or the backend trains on one only.
    """
    return _of_backend().find_devices(count)


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


def _of_backend() -> ModuleType:
    return import_module(f"keras_mixers.training.devices_on_{backends.NAME}")
