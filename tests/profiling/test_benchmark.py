"""What a benchmark does and records, not how fast anything is."""

import csv
import json
from dataclasses import asdict, replace

import keras
import numpy as np
import pytest

from keras_mixers import ConvMixer, SplitMixerI, SplitMixerII
from keras_mixers.models import PRESETS, Preset
from keras_mixers.models.presets import CIFAR10
from keras_mixers.profiling import benchmark as module
from keras_mixers.profiling.benchmark import (
    CSV_COLUMNS,
    MODES,
    Report,
    Subject,
    Task,
    benchmark,
    check_csv,
    describe_machine,
    measure_peak_memory,
    paper_protocol,
    peak_memory_of_this_process,
    summarize,
    time_in_rounds,
    warm_up,
)
from keras_mixers.profiling.peers import PEERS

TASK = Task("tiny_convmixer", "inference", 4, 8, "float32")
TORCH = ("torch eager contiguous", "torch eager channels_last")


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Put models of 8 channels and 2 blocks into the table."""
    sizes = {"dim": 8, "kernel_size": 3, "patch_size": 2, "num_classes": 5}
    monkeypatch.setitem(PRESETS, "tiny_convmixer", Preset(ConvMixer, {**sizes, "depth": 2}, CIFAR10))
    for name, builder, split in (("i", SplitMixerI, {"ratio": 2 / 3}), ("ii", SplitMixerII, {"segments": 2})):
        monkeypatch.setitem(PRESETS, f"tiny_{name}", Preset(builder, {**sizes, "blocks": 2, **split}, CIFAR10))


def report_of(times, task=TASK, **options):
    return Report(describe_machine(), tuple(summarize(task, times, 1, {}, **options)))


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


def test_medians_quartiles_and_ratios_by_round():
    # Round by round the peer takes 2, 1, 4, 3 and 8 times as long as ours: 3 times, though its median is 4 times ours.
    times = {"ours": [1, 2, 1, 4, 0.5], "keras": [2, 2, 4, 12, 4]}
    ours, peer = summarize(TASK, times, 1, {"keras": 7.0})
    assert (ours.low, ours.images_per_second, ours.high) == (2, 4, 4)
    assert (peer.low, peer.images_per_second, peer.high) == (1, 1, 2)
    assert ours.ours_to_this == 1
    assert peer.ours_to_this == 3
    assert (ours.peak_memory_mb, peer.peak_memory_mb) == (None, 7.0)


def test_latency_is_of_one_image():
    (many,) = summarize(TASK, {"ours": [1, 2, 3]}, 2, {})
    (one,) = summarize(replace(TASK, batch=1), {"ours": [1, 2, 3]}, 2, {})
    assert many.latency_ms is None
    assert many.images_per_second == 4
    assert one.latency_ms == 1000
    assert one.images_per_second == 1


def test_the_fastest_of_each_kind_of_peer_counts():
    printed = str(report_of({"ours": [2], "keras": [8], TORCH[0]: [3], TORCH[1]: [1]}))
    rows = [line.split(maxsplit=4) for line in printed.splitlines()]
    assert ["tiny_convmixer", "inference", "4", "4.00", "keras"] in rows
    assert ["tiny_convmixer", "inference", "4", "0.50", TORCH[1]] in rows
    assert ["tiny_convmixer", "inference", "4", "1.50", TORCH[0]] not in rows


def test_says_when_other_processes_disturbed(monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    times = {"ours": [1], "keras": [2]}
    for load, disturbed in ((None, False), (0.1, False), (0.9, True)):
        report = report_of(times, load_of_others=load)
        assert {result.disturbed for result in report.results} == {disturbed}
        assert str(report).count("DISTURBED: other processes kept 0.9 of 2 cores busy") == disturbed


def test_load_is_that_of_others():
    assert module._load(None, None, 2) is None
    assert module._load(10, 12 + module.TICKS, 2) == pytest.approx(1)
    assert module._load(10, 10, 2) == 0


@pytest.mark.parametrize(("precision", "modes", "batch"), [("float32", MODES, [2, 1]), ("bfloat16", ["training"], [2])])
def test_a_row_for_each_subject_mode_and_batch(precision, modes, batch):
    pytest.importorskip("torch")
    before = keras.config.dtype_policy()
    report = benchmark(
        ["tiny_i"],
        ["keras", "torch"],
        batch=batch,
        image_size=8,
        precision=precision,
        modes=modes,
        repetitions=2,
        batches=2,
    )
    assert keras.config.dtype_policy() is before
    rows = [(result.subject, result.mode, result.batch) for result in report.results]
    assert rows == [(subject, mode, n) for mode in modes for n in batch for subject in ("ours", "keras", *TORCH)]
    for result in report.results:
        assert (result.backend, result.model) == (keras.backend.backend(), "tiny_i")
        assert (result.image_size, result.precision) == (8, precision)
        assert 0 < result.low <= result.images_per_second <= result.high
        assert (result.latency_ms is not None) == (result.batch == 1)
    assert not report.notes


def test_compiles_what_is_to_be_compiled(monkeypatch):
    torch = pytest.importorskip("torch")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    subjects = module.make_subjects([*PEERS["torch"], *PEERS["torch-compiled"]], TASK)
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
        subjects = module.make_subjects(["keras", TORCH[0]], replace(TASK, mode=mode))
        before = values()
        for subject in subjects:
            subject.step()
            subject.wait()
        changed = [
            any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in zip(before, values(), strict=True)
        ]
        assert changed == [mode == "training"] * 2


def test_models_without_peers_are_measured_alone():
    report = benchmark(["tiny_ii"], ["keras"], batch=[2], image_size=8, modes=["inference"], repetitions=1)
    assert [result.subject for result in report.results] == ["ours"]
    assert len(report.notes) == 1
    assert "got 'tiny_ii', which SplitMixerII makes; it is measured by itself." in str(report)


def test_csv_and_json_hold_everything(tmp_path):
    report = report_of({"ours": [1, 2], "keras": [3, 5]})
    path = tmp_path / "results.csv"
    report.append_csv(path)
    report.append_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    machine = {f"machine_{name}": value for name, value in asdict(report.machine).items()}
    expected = [{**asdict(result), **machine} for result in report.results] * 2
    assert rows == [{name: "" if v is None else str(v) for name, v in row.items()} for row in expected]

    report.write_json(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(asdict(report)))


def test_refuses_files_that_it_cannot_write(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    with pytest.raises(ValueError, match="csv must be a new file or one of earlier results"):
        check_csv(other)
    with pytest.raises(ValueError, match="csv must be a file in a folder that exists"):
        check_csv(tmp_path / "missing" / "results.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["tiny_iii"]}, "There is no model named 'tiny_iii'"),
        ({"models": []}, "models, modes and batch must name at least one each"),
        ({"against": ["timm"]}, "against must be one of"),
        ({"batch": [0]}, "batch must be a whole number"),
        ({"image_size": 1}, "An image must be at least one patch"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"modes": ["test"]}, "modes must be one of"),
        ({"repetitions": 0}, "repetitions must be a whole number"),
        ({"batches": 0}, "batches must be a whole number"),
        ({"inference_batches": -1}, "inference_batches must be a whole number"),
    ],
)
def test_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr(module, "make_subjects", lambda *args: pytest.fail("began to work"))
    with pytest.raises(ValueError, match=message):
        benchmark(**{"models": ["tiny_i"], **arguments})


def test_the_papers_protocol(monkeypatch):
    monkeypatch.setattr(module, "device", lambda: "cpu")
    assert paper_protocol() == {"batch": (64,), "precision": "float32", "batches": 20, "inference_batches": 20}
    monkeypatch.setattr(module, "device", lambda: "gpu")
    assert paper_protocol() == {"batch": (64,), "precision": "float16", "batches": 20, "inference_batches": 100}


def test_memory_is_that_of_a_process_alone():
    task = Task("convmixer_128_4_p1_k8", "inference", 2, 8, "float32")
    ballast = np.ones(10**8)  # 800 MB that a child's ru_maxrss would begin with
    assert 100 < measure_peak_memory("ours", task) < ballast.nbytes / 1e6 + 100
    assert peak_memory_of_this_process("ours", TASK) > ballast.nbytes / 1e6


def test_says_which_subject_failed():
    with pytest.raises(RuntimeError, match="measures the memory of 'ours' at Task"):
        measure_peak_memory("ours", TASK)  # the child has no such model in its table
