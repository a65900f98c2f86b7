"""What a benchmark times: tasks, and ours and its peers as subjects that compute them on Keras's device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.benchmark.mlp_peers import MLPSizes
from keras_mixers.benchmark.peers import PEERS, check_kimm, keras_network, kimm_network, sizes_of, torch_network
from keras_mixers.layers.validation import DTYPE_POLICIES, check_choice, check_positive_int
from keras_mixers.models import create_model, get_preset
from keras_mixers.profiling import without_values
from keras_mixers.training import AdamW

try:
    import resource
except ImportError:  # Windows
    resource = None

MODES = ("inference", "training")
PRECISIONS = tuple(DTYPE_POLICIES)
OURS = "ours"
# A subject is warm when the times of its last two batches differ by less than this fraction, or after the most batches.
WARM, WARM_UP_BATCHES, MOST_WARM_UP_BATCHES = 0.2, 3, 10


@dataclass(frozen=True)
class Task:
    """What each subject does: run or train a model of the table on a batch of images."""

    model: str
    mode: str
    batch: int
    image_size: int
    precision: str


def make_tasks(
    models: Sequence[str], *, batch: Sequence[int], image_size: int | None, precision: str, modes: Sequence[str]
) -> list[Task]:
    """Returns the tasks that the arguments of `benchmark` describe, once all of them are checked."""
    check_choice("precision", precision, PRECISIONS)
    modes = [check_choice("modes", mode, MODES) for mode in modes]
    batch = [check_positive_int("batch", size) for size in batch]
    if image_size is not None:
        check_positive_int("image_size", image_size)
    sizes = {name: image_size or get_preset(name).pixels.size for name in models}
    for name, size in sizes.items():
        without_values(create_model, name, input_shape=(size, size, 3), data_format="channels_last")
    tasks = [Task(name, mode, n, sizes[name], precision) for name in sizes for mode in modes for n in batch]
    if not tasks:
        raise ValueError(
            f"models, modes and batch must name at least one each, got models={list(models)}, modes={modes}, "
            f"batch={batch}."
        )
    return tasks


@dataclass(frozen=True)
class Subject:
    """Something that can be timed, such as `"ours"` or `"torch eager contiguous"`."""

    name: str
    step: Callable[[], Any]  # starts to compute one batch, and may return before it is done
    wait: Callable[[], None]  # returns when all batches are computed


def choose_subjects(task: Task, peers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the subjects of a task, and why peers are not among them."""
    names, refusals = [OURS], []
    for peer in peers:
        try:
            sizes = sizes_of(task.model)
            if peer == "kimm":
                check_kimm(sizes, task.image_size)
            # Only the stem of an MLP-Mixer has a memory format.
            names += [each for each in PEERS[peer] if not (isinstance(sizes, MLPSizes) and "channels_last" in each)]
        except ValueError as error:
            refusals.append(str(error))
    return names, refusals


def make_subjects(names: Sequence[str], task: Task) -> list[Subject]:
    """Makes the subjects of a task, with the same synthetic images and labels for all of them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((task.batch, task.image_size, task.image_size, 3), dtype="float32")
    labels = rng.integers(get_preset(task.model).arguments["num_classes"], size=task.batch)
    if any(name.startswith("torch compiled") for name in names):
        import torch

        torch.compiler.reset()  # otherwise it stops compiling once its cache is full of networks
    makers = {name: _torch_subject if name.startswith("torch") else _keras_subject for name in names}
    return [make(name, task, images, labels) for name, make in makers.items()]


def _keras_subject(name: str, task: Task, images: np.ndarray, labels: np.ndarray) -> Subject:
    """Makes a subject of a Keras model, which runs `predict_on_batch` or `train_on_batch` on tensors on its device."""
    dtype = DTYPE_POLICIES[task.precision]
    if name == OURS:
        shape = (task.image_size, task.image_size, 3)
        model = create_model(task.model, input_shape=shape, data_format="channels_last", dtype=dtype)
    else:
        make = {"keras": keras_network, "kimm": kimm_network}[name]
        model = make(sizes_of(task.model), task.image_size, dtype)
    if task.mode == "inference":
        return inference_subject(name, model, images)
    x, y = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)
    model.compile(AdamW(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Subject(name, lambda: model.train_on_batch(x, y), lambda: backends.wait_for(model.weights))


def inference_subject(name: str, model: keras.Model, images: np.ndarray) -> Subject:
    """Makes a subject of a Keras model that runs `predict_on_batch`."""
    x = keras.ops.convert_to_tensor(images)
    return Subject(name, lambda: model.predict_on_batch(x), lambda: backends.wait_for(model.weights))


def _torch_subject(name: str, task: Task, images: np.ndarray, labels: np.ndarray) -> Subject:
    """Makes a subject of the network in PyTorch, on the kind of device that Keras's backend uses."""
    import torch

    from keras_mixers.backends.torch import wait_for

    _, execution, layout = name.split()
    place = "cuda" if backends.device() == "gpu" else "cpu"
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    network = torch_network(sizes_of(task.model), task.image_size).to(place, memory_format=memory_format)
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
        return Subject(name, infer, wait_for)

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

    return Subject(name, train, wait_for)


def page_faults_of(subject: Subject) -> int | None:
    """Returns how many pages of memory the system provides anew for one batch, None where it does not count them."""
    if resource is None:
        return None
    subject.wait()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    subject.step()
    subject.wait()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def warm_up(subject: Subject, clock: Callable[[], float] = time.perf_counter) -> None:
    """Lets a subject compute batches until two in a row take about as long, or there are enough of them."""
    times = []
    while len(times) < MOST_WARM_UP_BATCHES:
        times.append(_seconds(subject, 1, clock))
        if len(times) >= WARM_UP_BATCHES and abs(times[-1] - times[-2]) < WARM * max(times[-2:]):
            return


def time_in_rounds(
    subjects: Sequence[Subject], repetitions: int, batches: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Returns the seconds that each subject took for its batches, round by round; all are timed once a round."""
    rounds = [[_seconds(subject, batches, clock) for subject in subjects] for _ in range(repetitions)]
    return {subject.name: list(seconds) for subject, seconds in zip(subjects, zip(*rounds, strict=True), strict=True)}


def _seconds(subject: Subject, batches: int, clock: Callable[[], float]) -> float:
    subject.wait()
    start = clock()
    for _ in range(batches):
        subject.step()
    subject.wait()
    return clock() - start
