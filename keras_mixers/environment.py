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
# What Linux calls a CPU's instructions for products of bfloat16 matrices.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
# What speed depends on, by Linux's names.
FEATURES = ("avx2", "avx512f", "avx512_vnni", *sorted(BFLOAT16_FLAGS), "amx_int8")


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
    cpu_features: str = ""  # of FEATURES, those that the CPU has

    def __str__(self) -> str:
        features = f"; {self.cpu_features}" if self.cpu_features else ""
        gpu = f", {self.gpu}" if self.gpu else ""
        torch = f", torch {self.torch}" if self.torch and not self.backend.startswith("torch") else ""
        versions = f"Python {self.python}, keras {self.keras} on {self.backend}{torch}"
        return f"{self.cpu}, {self.cores} cores{gpu}; {versions}{features}"


def describe_environment() -> Environment:
    """Returns the hardware and the versions of this process."""
    return Environment(
        cpu=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        gpu=backends.gpu_name(),
        python=platform.python_version(),
        keras=keras.__version__,
        backend=f"{backends.NAME} {import_module(backends.NAME).__version__}",
        torch=metadata.version("torch") if find_spec("torch") else "",
        cpu_features=" ".join(name for name in FEATURES if name in _cpuinfo("flags").split()),
    )


def fastest_precision() -> str:
    """Returns the precision in which this backend trains fastest here: `"float16"`, `"bfloat16"` or `"float32"`.

    On a GPU it is float16, in which the papers trained; on a TPU, bfloat16; on a CPU with instructions for bfloat16,
    that too, except on JAX, whose compiler has no fast products of bfloat16 matrices for CPUs.
    """
    kind = backends.device()
    if kind == "cpu" and not (backends.FAST_BFLOAT16_ON_CPU and BFLOAT16_FLAGS & set(_cpuinfo("flags").split())):
        return "float32"
    return {"gpu": "float16", "cpu": "bfloat16", "tpu": "bfloat16"}.get(kind, "float32")


def _cpuinfo(name: str) -> str:
    """Returns what Linux says of the first core."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(rf"^{name}\s*: (.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else ""


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
