"""How fast our networks run, side by side with the same networks as others write them.

All subjects of a task are timed in the same process, one after the other in each of several rounds, so that a machine
that becomes slower or faster does so for all of them. That does not make up for other processes on the same cores. They
can disturb one subject far more than another: with one of two cores taken, eager PyTorch, whose threads wait for
one another, was seen to take 460 ms for a batch instead of 4. What others took is therefore measured with each task,
and a report says which of its ratios do not count.
"""

import csv
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.layers.device import device
from keras_mixers.layers.validation import check_choice, check_positive_int
from keras_mixers.models import create_model, find_preset
from keras_mixers.profiling.peers import (
    PEERS,
    check_kimm,
    check_peer,
    keras_network,
    kimm_network,
    sizes_of,
    torch_network,
)
from keras_mixers.profiling.table import aligned
from keras_mixers.profiling.without_values import without_values
from keras_mixers.training import AdamW

OURS = "ours"
MODES = ("inference", "training")
DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
PRECISIONS = tuple(DTYPE_POLICIES)
# A subject is warm when its last two batches took as long but for this part, after some batches and before many.
WARM, WARM_UP_BATCHES, MOST_WARM_UP_BATCHES = 0.2, 3, 10
# The part of all cores above which other processes make the ratios of a task useless.
DISTURBING_LOAD = 0.1
# The seconds by which the system's count of busy time, in ticks of 0.01 s, may be wrong at both ends.
TICKS = 0.02


@dataclass(frozen=True)
class Task:
    """What each subject does: a batch of images through a model of the table, with or without a step of training."""

    model: str
    mode: str
    batch: int
    image_size: int
    precision: str


@dataclass(frozen=True)
class Subject:
    """Something that can be timed.

    Attributes:
        name: such as `"ours"` or `"torch eager contiguous"`.
        step: begins to compute one batch, and may return before it is done.
        wait: returns when all batches are computed.
    """

    name: str
    step: Callable[[], Any]
    wait: Callable[[], None]


@dataclass(frozen=True)
class Result:
    """How one subject did at one task.

    Attributes:
        backend: Keras's backend.
        model: name in the table of models.
        subject: `"ours"`, or the peer.
        mode: `"inference"` or `"training"`.
        batch: images in a batch.
        image_size: height and width of the images in pixels.
        precision: `"float32"`, `"bfloat16"` or `"float16"`.
        images_per_second: median over the rounds.
        low: first quartile of images per second.
        high: third quartile of images per second.
        ours_to_this: images per second of ours to those of this subject in the same round, median over the rounds.
        latency_ms: median milliseconds for a batch of 1, None for larger ones.
        peak_memory_mb: the most memory that the subject took alone, in millions of bytes: of a process on a CPU, with
            its libraries, and of tensors on a GPU. None if it was not measured.
        load_of_others: the cores that other processes kept busy in the rounds, on average; None where the system does
            not tell.
    """

    backend: str
    model: str
    subject: str
    mode: str
    batch: int
    image_size: int
    precision: str
    images_per_second: float
    low: float
    high: float
    ours_to_this: float
    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    load_of_others: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other processes were so busy that the times and ratios do not count."""
        return (self.load_of_others or 0) > DISTURBING_LOAD * os.cpu_count()


@dataclass(frozen=True)
class Machine:
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


@dataclass(frozen=True)
class Report:
    """What a benchmark found; `print` shows it as a table.

    Attributes:
        machine: what it ran on.
        results: one for each task and subject.
        notes: a sentence for each peer that a model was not compared with.
    """

    machine: Machine
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        precisions = ", ".join(dict.fromkeys(result.precision for result in self.results))
        parts = [str(self.machine), aligned(_rows(self.results))]
        comparisons = _comparisons(self.results)
        if comparisons:
            heading = ("images/s of ours to those of the fastest", "mode", "batch", "ratio", "peer")
            parts.append(aligned([heading, *comparisons]))
        parts.append(
            f"{precisions}; images/s: median (quartiles) over the rounds; ours/this: images/s of ours to those of the "
            "subject,\nmedian of the ratios within a round."
        )
        return "\n\n".join([*parts, *self.notes, *_warnings(self.results)])

    def append_csv(self, path: str | Path) -> None:
        """Appends a row for each result, with the machine in its last columns, under a heading if the file is new."""
        path = check_csv(path)
        new = not path.exists() or not path.stat().st_size
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(CSV_COLUMNS)
            writer.writerows(astuple(result) + astuple(self.machine) for result in self.results)

    def write_json(self, path: str | Path) -> None:
        """Writes machine, results and notes."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")


CSV_COLUMNS = tuple(field.name for field in fields(Result)) + tuple(
    f"machine_{field.name}" for field in fields(Machine)
)


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
) -> Report:
    """Measures how fast models of the table run, side by side with peers.

    Every subject of a task is warmed up. Then, in each of the repetitions, each of them computes its batches of
    synthetic images once, and the clock stops when the results are there. In inference, norms use their moving
    statistics and no gradients are kept; a step of training is forward, cross-entropy, backward and AdamW.

    On a GPU, JAX takes most of the memory at once and leaves little to PyTorch: set the environment variable
    XLA_PYTHON_CLIENT_PREALLOCATE=false before Python starts.

    Args:
        models: names of the table.
        against: peers, of `"keras"` (plain layers), `"torch"` (hand-written, eager), `"torch-compiled"` and `"kimm"`.
            PyTorch is measured in both memory formats.
        batch: images in a batch; several are measured one after another. A batch of 1 also gives the latency.
        image_size: height and width of the images in pixels; None for each model's own.
        precision: `"float32"`, or `"bfloat16"` or `"float16"` with weights in float32.
        modes: `"inference"`, `"training"` or both.
        repetitions: rounds, over which medians and quartiles are taken.
        batches: batches that are timed at once.
        inference_batches: as many in inference; None for as many as in training.
        memory: whether the peak memory of each subject is measured too, in a process of its own.

    Returns:
        A `Report`.

    Raises:
        ValueError: if an argument is not as above, or what a peer needs is not installed.

    Example:
        >>> report = benchmark(
        ...     ["convmixer_128_4_p1_k8"], batch=[2], image_size=8, modes=["inference"], repetitions=3
        ... )
        >>> [(result.subject, result.images_per_second > 0) for result in report.results]
        [('ours', True)]
    """
    tasks = make_tasks(models, batch=batch, image_size=image_size, precision=precision, modes=modes)
    repetitions = check_positive_int("repetitions", repetitions)
    batches_of = {"training": check_positive_int("batches", batches)}
    batches_of["inference"] = check_positive_int("inference_batches", inference_batches or batches)
    peers = [check_peer(peer) for peer in dict.fromkeys(against)]

    results, notes = [], []
    for task in tasks:
        names, refusals = choose_subjects(task, peers)
        notes += refusals
        peaks = {name: measure_peak_memory(name, task) for name in names} if memory else {}
        subjects = make_subjects(names, task)
        for subject in subjects:
            warm_up(subject)
        start, before = time.perf_counter(), _busy_seconds_of_others()
        times = time_in_rounds(subjects, repetitions, batches_of[task.mode])
        load = _load(before, _busy_seconds_of_others(), time.perf_counter() - start)
        results += summarize(task, times, batches_of[task.mode], peaks, load)
        del subjects
        gc.collect()
    return Report(describe_machine(), tuple(results), tuple(dict.fromkeys(notes)))


def paper_protocol() -> dict[str, Any]:
    """Returns the arguments with which both papers measured: half precision on a GPU, and many batches of 64."""
    if device() == "gpu":
        return {"batch": (64,), "precision": "float16", "batches": 20, "inference_batches": 100}
    return {"batch": (64,), "precision": "float32", "batches": 20, "inference_batches": 20}


def make_tasks(
    models: Sequence[str], *, batch: Sequence[int], image_size: int | None, precision: str, modes: Sequence[str]
) -> list[Task]:
    """Returns the tasks that the arguments of `benchmark` describe, if all of them can be carried out."""
    check_choice("precision", precision, PRECISIONS)
    modes = [check_choice("modes", mode, MODES) for mode in modes]
    batch = [check_positive_int("batch", size) for size in batch]
    if image_size is not None:
        check_positive_int("image_size", image_size)
    sizes = {name: image_size or find_preset(name).pixels.size for name in models}
    for name, size in sizes.items():
        without_values(create_model, name, input_shape=(size, size, 3), data_format="channels_last")
    tasks = [Task(name, mode, n, sizes[name], precision) for name in sizes for mode in modes for n in batch]
    if not tasks:
        raise ValueError(
            f"models, modes and batch must name at least one each, got models={list(models)}, modes={modes}, "
            f"batch={batch}."
        )
    return tasks


def choose_subjects(task: Task, peers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the subjects of a task, and why peers are not among them."""
    names, refusals = [OURS], []
    for peer in peers:
        try:
            sizes = sizes_of(task.model)
            if peer == "kimm":
                check_kimm(sizes, task.image_size)
            names += PEERS[peer]
        except ValueError as error:
            refusals.append(str(error))
    return names, refusals


def make_subjects(names: Sequence[str], task: Task) -> list[Subject]:
    """Makes the subjects of a task, with the same synthetic images and labels for all of them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((task.batch, task.image_size, task.image_size, 3), dtype="float32")
    labels = rng.integers(find_preset(task.model).arguments["num_classes"], size=task.batch)
    if any(name.startswith("torch compiled") for name in names):
        import torch

        torch.compiler.reset()  # else it would stop compiling after as many networks as fit into its cache
    return [
        (_torch_subject if name.startswith("torch") else _keras_subject)(name, task, images, labels) for name in names
    ]


def _keras_subject(name: str, task: Task, images: np.ndarray, labels: np.ndarray) -> Subject:
    """Makes a subject of a Keras model, with Keras's own functions for one batch, from tensors on its device."""
    dtype = DTYPE_POLICIES[task.precision]
    if name == OURS:
        shape = (task.image_size, task.image_size, 3)
        model = create_model(task.model, input_shape=shape, data_format="channels_last", dtype=dtype)
    else:
        make = {"keras": keras_network, "kimm": kimm_network}[name]
        model = make(sizes_of(task.model), task.image_size, dtype)
    x, y = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)
    wait = {"jax": _wait_for_jax, "tensorflow": _wait_for_tensorflow, "torch": _wait_for_torch}
    wait = wait[keras.backend.backend()]
    if task.mode == "inference":
        return Subject(name, lambda: model.predict_on_batch(x), lambda: wait(model))
    model.compile(AdamW(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Subject(name, lambda: model.train_on_batch(x, y), lambda: wait(model))


def _wait_for_jax(model: keras.Model) -> None:
    import jax

    jax.block_until_ready([weight.value for weight in model.weights])


def _wait_for_tensorflow(model: keras.Model) -> None:
    model.weights[-1].numpy()


def _wait_for_torch(model: Any = None) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _torch_subject(name: str, task: Task, images: np.ndarray, labels: np.ndarray) -> Subject:
    """Makes a subject of the network in PyTorch, on the kind of device on which Keras's backend computes."""
    import torch

    _, execution, layout = name.split()
    place = "cuda" if device() == "gpu" else "cpu"
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    network = torch_network(sizes_of(task.model)).to(place, memory_format=memory_format)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(place).contiguous(memory_format=memory_format)
    y = torch.from_numpy(labels).to(place)
    forward = torch.compile(network) if execution == "compiled" else network
    half = task.precision != "float32"
    cast = {"device_type": place, "dtype": getattr(torch, task.precision) if half else None, "enabled": half}
    # cuDNN may choose its fastest convolution, as XLA does.
    tuned = {"enabled": True, "benchmark": True}

    def infer() -> torch.Tensor:
        with torch.backends.cudnn.flags(**tuned), torch.inference_mode(), torch.autocast(**cast):
            return forward(x)

    if task.mode == "inference":
        network.eval()
        return Subject(name, infer, _wait_for_torch)

    optimizer = torch.optim.AdamW(network.parameters())
    scaler = torch.amp.GradScaler(place, enabled=task.precision == "float16")

    def train() -> torch.Tensor:
        with torch.backends.cudnn.flags(**tuned):
            optimizer.zero_grad()
            with torch.autocast(**cast):
                loss = torch.nn.functional.cross_entropy(forward(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

    return Subject(name, train, _wait_for_torch)


def time_in_rounds(
    subjects: Sequence[Subject], repetitions: int, batches: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Returns the seconds that each subject took for its batches, round by round; all are timed once a round."""
    times = {subject.name: [] for subject in subjects}
    for _ in range(repetitions):
        for subject in subjects:
            times[subject.name].append(_seconds(subject, batches, clock))
    return times


def warm_up(subject: Subject, clock: Callable[[], float] = time.perf_counter) -> None:
    """Lets a subject compute batches until they take no less time than before, or there are enough of them."""
    times = []
    while len(times) < MOST_WARM_UP_BATCHES:
        times.append(_seconds(subject, 1, clock))
        if len(times) >= WARM_UP_BATCHES and abs(times[-1] - times[-2]) < WARM * max(times[-2:]):
            return


def _seconds(subject: Subject, batches: int, clock: Callable[[], float]) -> float:
    subject.wait()
    start = clock()
    for _ in range(batches):
        subject.step()
    subject.wait()
    return clock() - start


def _busy_seconds_of_others() -> float | None:
    """Returns the seconds for which other processes have kept cores busy, None where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, stat.read_text().split(maxsplit=9)[1:9])
    busy = user + nice + system + interrupts + soft + stolen
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def _load(before: float | None, after: float | None, seconds: float) -> float | None:
    return None if before is None else max(after - before - TICKS, 0) / seconds


def summarize(
    task: Task,
    times: dict[str, list[float]],
    batches: int,
    peaks: dict[str, float],
    load_of_others: float | None = None,
) -> list[Result]:
    """Makes the results of a task of the seconds for `batches` batches, of each subject in each round."""
    ours = np.array(times[OURS])
    results = []
    for name, seconds in times.items():
        seconds = np.array(seconds)
        low, median, high = np.quantile(task.batch * batches / seconds, [0.25, 0.5, 0.75])
        results.append(
            Result(
                keras.backend.backend(),
                task.model,
                name,
                task.mode,
                task.batch,
                task.image_size,
                task.precision,
                images_per_second=float(median),
                low=float(low),
                high=float(high),
                ours_to_this=float(np.median(seconds / ours)),
                latency_ms=float(np.median(seconds / batches)) * 1000 if task.batch == 1 else None,
                peak_memory_mb=peaks.get(name),
                load_of_others=load_of_others,
            )
        )
    return results


def measure_peak_memory(subject: str, task: Task) -> float:
    """Returns the most memory, in millions of bytes, that a subject takes for a task, alone in a process.

    Raises:
        RuntimeError: if that process fails.
    """
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
        # PyTorch's process shall not hold another backend besides.
        "KERAS_BACKEND": "torch" if subject.startswith("torch") else keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", __name__, subject, json.dumps(asdict(task))]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"The process that measures the memory of {subject!r} at {task} failed:\n{child.stderr}")
    return float(child.stdout.split()[-1])


def peak_memory_of_this_process(subject: str, task: Task) -> float:
    """Lets a subject compute a few batches and returns the peak memory of this process in millions of bytes."""
    (alone,) = make_subjects([subject], task)
    warm_up(alone)
    if device() == "cpu":
        return _peak_of_process() / 1e6
    if subject.startswith("torch") or keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def _peak_of_process() -> int:
    """Returns the most bytes that this process had in memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike ru_maxrss, which on Linux begins with the memory of the process that started this one.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def describe_machine() -> Machine:
    """Returns the hardware and the versions of this process."""
    backend = keras.backend.backend()
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = ""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        gpu=_gpu(),
        python=platform.python_version(),
        keras=keras.__version__,
        backend=f"{backend} {import_module(backend).__version__}",
        torch=torch,
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> str:
    """Returns the name of the GPU on which the backend computes, "" if it computes on a CPU."""
    if device() == "cpu":
        return ""
    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0].device_kind
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name()
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[0]
    return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")


def check_csv(path: str | Path) -> Path:
    """Returns `path` if results can be appended to it."""
    path = check_folder("csv", path)
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            columns = tuple(next(csv.reader(file)))
        if columns != CSV_COLUMNS:
            raise ValueError(
                f"csv must be a new file or one of earlier results, got csv={str(path)!r} with other columns; "
                "choose another name."
            )
    return path


def check_folder(name: str, path: str | Path) -> Path:
    """Returns `path` if a file can be written there."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {name}={str(path)!r}; make its folder.")
    return path


def _rows(results: Sequence[Result]) -> list[tuple[object, ...]]:
    """Returns the table of all results, with the columns that they need."""

    def number(value: float | None, digits: int = 1) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    columns: dict[str, Callable[[Result], object]] = {
        "model": lambda result: result.model,
        "image": lambda result: result.image_size,
        "mode": lambda result: result.mode,
        "batch": lambda result: result.batch,
        "subject": lambda result: result.subject,
        "images/s": lambda result: f"{number(result.images_per_second)} ({number(result.low)} - {number(result.high)})",
        "ours/this": lambda result: number(result.ours_to_this, 2),
    }
    if any(result.latency_ms is not None for result in results):
        columns["latency in ms"] = lambda result: number(result.latency_ms, 2)
    if any(result.peak_memory_mb is not None for result in results):
        columns["peak memory in MB"] = lambda result: number(result.peak_memory_mb, 0)
    return [tuple(columns), *(tuple(cell(result) for cell in columns.values()) for result in results)]


def _comparisons(results: Sequence[Result]) -> list[tuple[object, ...]]:
    """Returns, for each task and kind of peer, the ratio of ours to the fastest of that kind."""
    tasks: dict[tuple, list[Result]] = {}
    for result in results:
        tasks.setdefault((result.model, result.image_size, result.mode, result.batch), []).append(result)
    rows = []
    for (model, _, mode, batch), subjects in tasks.items():
        for names in PEERS.values():
            peers = [result for result in subjects if result.subject in names]
            if peers:
                best = max(peers, key=lambda result: result.images_per_second)
                rows.append((model, mode, batch, f"{best.ours_to_this:.2f}", best.subject))
    return rows


def _warnings(results: Sequence[Result]) -> list[str]:
    """Returns a sentence for each task that other processes disturbed."""
    return list(
        dict.fromkeys(
            f"DISTURBED: other processes kept {result.load_of_others:.1f} of {os.cpu_count()} cores busy while "
            f"{result.model} was timed ({result.mode}, batch {result.batch}), so its ratios do not count; measure "
            "again when the machine is idle."
            for result in results
            if result.disturbed
        )
    )


if __name__ == "__main__":
    print(peak_memory_of_this_process(sys.argv[1], Task(**json.loads(sys.argv[2]))))
