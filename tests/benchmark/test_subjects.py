"""Subjects compute what a task asks of them, in the layout and mode of their names; they are warm when timed."""

from dataclasses import replace

import pytest

from keras_mixers.benchmark import subjects as module
from keras_mixers.benchmark.peers import PEERS
from keras_mixers.benchmark.subjects import Subject, Task, make_subjects, time_in_rounds, warm_up

pytestmark = pytest.mark.usefixtures("tiny_models")
TASK = Task("tiny_convmixer", "inference", 4, 8, "float32")


def test_compiles_what_is_to_be_compiled(monkeypatch):
    torch = pytest.importorskip("torch")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    subjects = make_subjects([*PEERS["torch"], *PEERS["torch-compiled"]], TASK)
    layouts = ("contiguous", "channels_last")
    expected = [f"torch {execution} {layout}" for execution in ("eager", "compiled") for layout in layouts]
    assert [subject.name for subject in subjects] == expected
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


class Recorder:
    """Subjects, and a clock, that write down when they are called; a step takes a second, waiting for it 2 more."""

    def __init__(self):
        self.now, self.calls = 0, []

    def clock(self):
        self.calls.append("clock")
        return self.now

    def call(self, what, seconds):
        self.calls.append(what)
        self.now += seconds

    def subject(self, name):
        return Subject(name, lambda: self.call(f"{name} step", 1), lambda: self.call(f"{name} wait", 2))


@pytest.mark.backend_independent
def test_rounds_are_interleaved_and_synchronised():
    recorder = Recorder()
    subjects = [recorder.subject("ours"), recorder.subject("keras")]
    times = time_in_rounds(subjects, repetitions=2, batches=3, clock=recorder.clock)
    once = {
        name: [f"{name} wait", "clock", *[f"{name} step"] * 3, f"{name} wait", "clock"] for name in ("ours", "keras")
    }
    assert recorder.calls == (once["ours"] + once["keras"]) * 2
    assert times == {"ours": [5, 5], "keras": [5, 5]}


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("seconds", "batches"),
    [([9, 1, 1, 1], 3), ([9, 5, 3, 2, 1.9, 1], 5), ([2.0**-i for i in range(20)], 10)],
)
def test_warms_up_until_two_batches_take_as_long(seconds, batches):
    now, steps, calls = [0], iter(seconds), []

    def step():
        calls.append(next(steps))
        now[0] += calls[-1]

    warm_up(Subject("ours", step, lambda: None), clock=lambda: now[0])
    assert len(calls) == batches
