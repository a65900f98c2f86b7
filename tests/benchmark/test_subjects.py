"""Subjects compute what a task asks of them, in the layout and mode of their names."""

from dataclasses import replace

import pytest

from keras_mixers.benchmark import subjects as module
from keras_mixers.benchmark.peers import PEERS
from keras_mixers.benchmark.subjects import make_subjects
from keras_mixers.benchmark.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny_models")
TASK = Task("tiny_convmixer", "inference", 4, 8, "float32")


def test_compiles_what_is_to_be_compiled(monkeypatch):
    torch = pytest.importorskip("torch")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    subjects = make_subjects([*PEERS["torch"], *PEERS["torch-compiled"]], TASK)
    assert [subject.name for subject in subjects] == [
        f"torch {execution} {layout}"
        for execution in ("eager", "compiled")
        for layout in ("contiguous", "channels_last")
    ]
    assert len(compiled) == 2
    for subject, layout in zip(subjects, ("contiguous_format", "channels_last") * 2, strict=True):
        assert subject.step().shape == (4, 5)
        network = compiled[layout == "channels_last"]
        assert network[0].weight.is_contiguous(memory_format=getattr(torch, layout))


def test_training_trains_and_inference_does_not(monkeypatch):
    torch = pytest.importorskip("torch")
    made = []
    for name in ("keras_network", "torch_network"):
        make = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, make=make: made.append(make(*args)) or made[-1])

    def values():
        return [
            [p.detach().numpy().copy() for p in network.parameters()]
            if isinstance(network, torch.nn.Sequential)
            else network.get_weights()
            for network in made
        ]

    for mode in ("inference", "training"):
        made.clear()
        subjects = make_subjects(["keras", "torch eager contiguous"], replace(TASK, mode=mode))
        before = values()
        for subject in subjects:
            subject.step()
            subject.wait()
        changed = [
            any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in zip(before, values(), strict=True)
        ]
        assert changed == [mode == "training"] * 2
