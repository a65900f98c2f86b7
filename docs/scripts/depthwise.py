"""How fast each implementation of the depthwise convolution is: the measurement behind the table of choices.

    KERAS_BACKEND=jax python docs/scripts/depthwise.py

writes what it measures on this backend to docs/benchmarks/depthwise.csv, in the place of what was there for it.
"""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.layers.depthwise import IMPLEMENTATIONS, depthwise_conv

SHAPE = (64, 16, 16, 256)
KERNELS = ((1, 5), (5, 1), (5, 5), (1, 7), (7, 1), (7, 7))
WARM_UPS, REPETITIONS = 2, 7
COLUMNS = ("backend", "device", "kernel", "implementation", "inference_ms", "training_ms")
CSV = Path(__file__).parents[1] / "benchmarks" / "depthwise.csv"


def measure() -> list[dict[str, Any]]:
    """Times each implementation at each kernel: the median milliseconds of a convolution, and of one with gradients.

    Implementations take turns in every repetition, so that a machine that becomes slower does so for all.
    """
    rng = np.random.default_rng(0)
    x, upstream = (keras.ops.convert_to_tensor(rng.standard_normal(SHAPE, dtype="float32")) for _ in range(2))
    rows = []
    for kernel_size in KERNELS:
        kernel = keras.ops.convert_to_tensor(rng.standard_normal((*kernel_size, SHAPE[-1], 1), dtype="float32"))
        calls = {}
        for name in IMPLEMENTATIONS:
            forward, training = compiled(name)
            calls[name, "inference_ms"] = lambda forward=forward, kernel=kernel: forward(x, kernel)
            calls[name, "training_ms"] = lambda training=training, kernel=kernel: training(x, kernel, upstream)
        times = {key: [] for key in calls}
        for _ in range(WARM_UPS + REPETITIONS):
            for key, call in calls.items():
                times[key].append(milliseconds(call))
        for name in IMPLEMENTATIONS:
            columns = {mode: round(np.median(times[name, mode][WARM_UPS:]), 2) for mode in COLUMNS[-2:]}
            place = {"backend": backends.NAME, "device": backends.device()}
            rows.append({**place, "kernel": "x".join(map(str, kernel_size)), "implementation": name, **columns})
    return rows


def milliseconds(call: Callable[[], Any]) -> float:
    """Returns how long `call` takes until its results are there."""
    start = time.perf_counter()
    results = call()
    for result in keras.tree.flatten(results):
        keras.ops.convert_to_numpy(result[..., :1])  # a GPU returns before it is done
    return (time.perf_counter() - start) * 1000


def compiled(implementation: str) -> tuple[Callable, Callable]:
    """Returns the convolution as the backend runs it in a model, alone and with both gradients."""

    def convolve(x: Any, kernel: Any) -> Any:
        return depthwise_conv(x, kernel, "channels_last", implementation=implementation)

    def with_gradients(x: Any, kernel: Any, upstream: Any) -> tuple[Any, list[Any]]:
        return backends.value_and_gradients(convolve, (x, kernel), upstream)

    return backends.compiled(convolve), backends.compiled(with_gradients)


def main() -> None:
    """Measures on this backend and writes the file."""
    rows = measure()
    others = []
    if CSV.exists():
        with CSV.open(newline="") as file:
            place = tuple(rows[0][column] for column in ("backend", "device"))
            others = [row for row in csv.DictReader(file) if (row["backend"], row["device"]) != place]
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *rows])
    for row in rows:
        print(*row.values())


if __name__ == "__main__":
    main()
