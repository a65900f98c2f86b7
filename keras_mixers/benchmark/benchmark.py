"""How fast our networks run, side by side with the same networks as others write them.

All subjects of a task are timed in one process, in turn in each of several rounds, so that a machine that slows down
does so for all of them. Other processes on the same cores can still disturb one subject far more than another: with one
of two cores taken, eager PyTorch, whose threads wait for one another, took 460 ms for a batch instead of 4. Their load
is therefore measured with each task, and a report says which of its ratios do not count.
"""

import gc
import time
from collections.abc import Sequence
from typing import Any

from keras_mixers import backends
from keras_mixers.backends import contract
from keras_mixers.benchmark.peak_memory import measure_peak_memory
from keras_mixers.benchmark.peers import check_peer
from keras_mixers.benchmark.report import Report, summarize
from keras_mixers.benchmark.subjects import (
    MODES,
    choose_subjects,
    make_subjects,
    make_tasks,
    page_faults_of,
    time_in_rounds,
    warm_up,
)
from keras_mixers.environment import busy_seconds_of_others, describe_environment, load_of_others
from keras_mixers.layers.validation import check_positive_int


def benchmark(
    models: Sequence[str],
    against: Sequence[str] = (),
    *,
    batch: Sequence[int] = (64,),
    image_size: int | None = None,
    precision: str = "float32",
    modes: Sequence[str] = MODES,
    repetitions: int = 7,
    batches: int = 1,
    inference_batches: int | None = None,
    memory: bool = False,
    keep_memory: bool = True,
) -> Report:
    """Measures how fast models of the table run, side by side with peers.

    Every subject of a task is warmed up. Then, in each repetition, each subject computes its batches of synthetic
    images once, and the clock stops when the results are there. In inference, norms use their moving statistics and no
    gradients are kept; a training step is forward, cross-entropy, backward and AdamW.

    On a GPU, JAX preallocates most of the memory and leaves little to PyTorch, unless the environment variable
    XLA_PYTHON_CLIENT_PREALLOCATE=false is set before Python starts.

    Args:
        models: names of the table.
        against: peers, of `"keras"` (plain layers), `"torch"` (hand-written, eager), `"torch-compiled"` and `"kimm"`.
            PyTorch is measured in both memory formats.
        batch: images per batch, one or several numbers; 1 also gives the latency.
        image_size: height and width of the images in pixels; None for each model's own.
        precision: `"float32"`, or `"bfloat16"` or `"float16"` with weights in float32.
        modes: `"inference"`, `"training"` or both.
        repetitions: rounds, over which medians and quartiles are taken.
        batches: batches timed at once.
        inference_batches: the same for inference; None for `batches`.
        memory: whether to measure the peak memory of each subject too, in a process of its own.
        keep_memory: whether the process keeps its memory, for ours and for peers alike, as
            `keras_mixers.training.keep_memory` explains; it is never undone.

    Returns:
        A `Report`.

    Raises:
        ValueError: if an argument is not as above, or what a peer needs is not installed.

    Example:
        >>> report = benchmark(["convmixer_128_4_p1_k8"], batch=[2], image_size=8, modes=["inference"], repetitions=3)
        >>> [(result.subject, result.images_per_second > 0) for result in report.results]
        [('ours', True)]
    """
    tasks = make_tasks(models, batch=batch, image_size=image_size, precision=precision, modes=modes)
    repetitions = check_positive_int("repetitions", repetitions)
    batches_of = {"training": check_positive_int("batches", batches)}
    batches_of["inference"] = check_positive_int("inference_batches", inference_batches or batches)
    peers = [check_peer(peer) for peer in dict.fromkeys(against)]

    if (
        keep_memory
        and not backends.keep_memory()
        and {"torch", "torch-compiled"} & {*peers}
        and backends.device() == "cpu"
    ):
        contract.keep_freed_memory()
    results, notes = [], []
    for task in tasks:
        names, refusals = choose_subjects(task, peers)
        notes += refusals
        peaks = {name: measure_peak_memory(name, task) for name in names} if memory else {}
        subjects = make_subjects(names, task)
        for subject in subjects:
            warm_up(subject)
        start, before = time.perf_counter(), busy_seconds_of_others()
        times = time_in_rounds(subjects, repetitions, batches_of[task.mode])
        load = load_of_others(before, busy_seconds_of_others(), time.perf_counter() - start)
        faults = {subject.name: page_faults_of(subject) for subject in subjects}
        results += summarize(task, times, batches_of[task.mode], peaks, load, faults)
        del subjects
        gc.collect()
    return Report(describe_environment(), tuple(results), tuple(dict.fromkeys(notes)))


def paper_protocol() -> dict[str, Any]:
    """Returns the arguments with which both papers measured: half precision on a GPU, and many batches of 64."""
    on_gpu = backends.device() == "gpu"
    device = {"precision": "float16" if on_gpu else "float32", "inference_batches": 100 if on_gpu else 20}
    return {"batch": (64,), "batches": 20, **device}
