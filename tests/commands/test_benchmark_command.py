"""`benchmark` prints a report, hands its arguments on, and loses no result to a full disk."""

import json
from pathlib import Path

import keras
import pytest

from keras_mixers.__main__ import main
from keras_mixers.benchmark.benchmark import paper_protocol
from keras_mixers.benchmark.report import Report, Timing
from keras_mixers.commands import benchmark as command
from keras_mixers.environment import describe_environment

pytestmark = pytest.mark.backend_independent


def test_benchmarks(run, tmp_path):
    files = {"--csv": tmp_path / "results.csv", "--json": tmp_path / "results.json"}
    # Of odd kernel: PyTorch warns of even ones, on stderr.
    arguments = "--models convmixer_256_8_p2_k3 --against keras --modes inference --batch 2 --image-size 4".split()
    arguments += [text for option, path in files.items() for text in (option, path)]
    out = run("benchmark", *arguments, "--repetitions", 2)
    assert f"keras {keras.__version__} on {keras.backend.backend()}" in out.splitlines()[0]
    rows = [line.split()[:5] for line in out.splitlines() if line.startswith("convmixer_256_8_p2_k3")]
    assert rows[:2] == [["convmixer_256_8_p2_k3", "4", "inference", "2", name] for name in ("ours", "keras")]
    assert len(files["--csv"].read_text().splitlines()) == 3
    assert len(json.loads(files["--json"].read_text())["results"]) == 2


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ((), {}),
        (("--protocol", "paper"), paper_protocol()),
        (("--batch", 8, 1, "--precision", "bfloat16", "--batches", 3),
         {"batch": [8, 1], "precision": "bfloat16", "batches": 3}),
    ],
)  # fmt: skip
def test_hands_its_arguments_on(monkeypatch, run, arguments, settings):
    calls = []
    monkeypatch.setattr(command, "benchmark", lambda *args, **kwargs: calls.append((args, kwargs)))
    run("benchmark", *arguments, "--against", "torch", "--memory")
    [(positional, named)] = calls
    assert positional == (["convmixer_256_8_p2_k5", "splitmixer_i_256_8"], ["torch"])
    others = {
        "image_size": None,
        "modes": ("inference", "training"),
        "repetitions": 7,
        "memory": True,
        "keep_memory": True,
    }
    assert named == {**others, **settings}


@pytest.fixture
def report(monkeypatch):
    """What a benchmark that takes no time returns."""
    result = Timing(keras.backend.backend(), "zzz", "ours", "inference", 64, 32, "float32", 10.0, 9.0, 11.0, 1.0)
    report = Report(describe_environment(), (result,))
    monkeypatch.setattr(command, "benchmark", lambda *args, **kwargs: report)
    return report


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full, a disk without space")
@pytest.mark.parametrize(("full", "other"), [("--csv", "--json"), ("--json", "--csv")])
def test_a_full_disk_does_not_lose_the_report(capsys, tmp_path, report, full, other):
    assert main(["benchmark", full, "/dev/full", other, str(tmp_path / "results")]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{report}\n"
    assert captured.err == "The results could not be written to '/dev/full': No space left on device\n"
    assert "zzz" in (tmp_path / "results").read_text()


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_folder_removed_meanwhile_does_not_lose_the_report(monkeypatch, capsys, tmp_path, report, option):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(command, "benchmark", lambda *args, **kwargs: folder.rmdir() or report)
    assert main(["benchmark", option, str(folder / "results")]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{report}\n"
    assert captured.err.startswith(f"The results could not be written to {str(folder / 'results')!r}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "zzz"), "There is no model named 'zzz'"),
        (("--csv", "no/such/folder.csv"), "csv must be a file in a folder that exists"),
        (("--json", "no/such/folder.json"), "json must be a file in a folder that exists"),
        (("--protocol", "paper", "--batch", 4), "--protocol paper sets batch, precision and batches, got --batch too"),
    ],
)
def test_refuses_in_one_sentence(refused, arguments, message):
    assert message in refused("benchmark", *arguments)
