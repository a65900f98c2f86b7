"""What a benchmark times: ours and its peers, each ready to compute a task's batches on Keras's device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.benchmark.peers import PEERS, check_kimm, keras_network, kimm_network, sizes_of, torch_network
from keras_mixers.benchmark.tasks import Task
from keras_mixers.layers.validation import DTYPE_POLICIES
from keras_mixers.models import create_model, get_preset
from keras_mixers.training import AdamW

OURS = "ours"


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
    labels = rng.integers(get_preset(task.model).arguments["num_classes"], size=task.batch)
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
    if task.mode == "inference":
        return Subject(name, lambda: model.predict_on_batch(x), lambda: backends.wait_for(model.weights))
    model.compile(AdamW(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Subject(name, lambda: model.train_on_batch(x, y), lambda: backends.wait_for(model.weights))


def _torch_subject(name: str, task: Task, images: np.ndarray, labels: np.ndarray) -> Subject:
    """Makes a subject of the network in PyTorch, on the kind of device on which Keras's backend computes."""
    import torch

    from keras_mixers.backends.torch import wait_for

    _, execution, layout = name.split()
    place = "cuda" if backends.device() == "gpu" else "cpu"
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
