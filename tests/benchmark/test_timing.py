"""Subjects are warm when they are timed, and take turns."""

import pytest

from keras_mixers.benchmark.subjects import Subject, time_in_rounds, warm_up

pytestmark = pytest.mark.backend_independent


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


def test_rounds_are_interleaved_and_synchronised():
    recorder = Recorder()
    subjects = [recorder.subject("ours"), recorder.subject("keras")]
    times = time_in_rounds(subjects, repetitions=2, batches=3, clock=recorder.clock)
    once = {
        name: [f"{name} wait", "clock", *[f"{name} step"] * 3, f"{name} wait", "clock"] for name in ("ours", "keras")
    }
    assert recorder.calls == (once["ours"] + once["keras"]) * 2
    assert times == {"ours": [5, 5], "keras": [5, 5]}


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [([9, 1, 1, 1], 3), ([9, 5, 3, 2, 1.9, 1], 5), ([2.0**-i for i in range(20)], 10)],
)
def test_warms_up_until_two_batches_take_as_long(seconds, batches):
    now, steps = [0], iter(seconds)
    calls = []

    def step():
        calls.append(next(steps))
        now[0] += calls[-1]

    warm_up(Subject("ours", step, lambda: None), clock=lambda: now[0])
    assert len(calls) == batches
