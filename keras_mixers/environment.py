"""What a benchmark ran on, and how busy others kept it."""

import os
import platform
import re
import time
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import keras

from keras_mixers import backends

# Seconds: the system counts busy time in ticks of 0.01 s, so it may be one tick off at both ends.
TICKS = 0.02


@dataclass(frozen=True)
class Environment:
    """Hardware and versions; `print` shows them in one line."""

    cpu: str
    cores: int
    gpu: str
    python: str
    keras: str
    backend: str
    torch: str

    def __str__(self) -> str:
        gpu = f", {self.gpu}" if self.gpu else ""
        torch = f", torch {self.torch}" if self.torch and not self.backend.startswith("torch") else ""
        return f"{self.cpu}, {self.cores} cores{gpu}; Python {self.python}, keras {self.keras} on {self.backend}{torch}"


def describe_environment() -> Environment:
    """Returns the hardware and the versions of this process."""
    return Environment(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        gpu=backends.gpu_name(),
        python=platform.python_version(),
        keras=keras.__version__,
        backend=f"{backends.NAME} {import_module(backends.NAME).__version__}",
        torch=metadata.version("torch") if find_spec("torch") else "",
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def busy_seconds_of_others() -> float | None:
    """Returns the seconds for which other processes have kept cores busy, None where the system does not count."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, stat.read_text().split(maxsplit=9)[1:9])
    busy = user + nice + system + interrupts + soft + stolen
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def load_of_others(before: float | None, after: float | None, seconds: float) -> float | None:
    """Returns how many cores others kept busy on average, from their busy seconds before and after `seconds`."""
    return None if before is None else max(after - before - TICKS, 0) / seconds
