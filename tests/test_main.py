"""The command line, in this process and as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_mixers
import keras_mixers.__main__ as command_line
from keras_mixers.__main__ import COMMANDS, main
from keras_mixers.models import PRESETS
from keras_mixers.profiling import profile
from keras_mixers.profiling.benchmark import paper_protocol
from keras_mixers.profiling.machine import describe_machine
from keras_mixers.profiling.report import Report, Result

ROOT = Path(__file__).parents[1]


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert not captured.err
    return status, captured.out


def profile_of(name, height, width, **overrides):
    model = keras_mixers.create_model(name, **overrides)
    sides = iter((height, width))
    return profile(model, [channels or next(sides) for channels in model.input_shape[1:]])


def test_lists_every_model(capsys):
    status, out = run(capsys, "list")
    heading, *rows = out.splitlines()
    assert status == 0
    assert heading.split("  ")[0] == "model"
    assert [row.split()[0] for row in rows] == keras_mixers.list_models()
    for row, preset in zip(rows, PRESETS.values(), strict=True):
        assert int(row.split()[3]) == preset.pixels.size
        for published in preset.published:
            assert f"{published.top1:.2f}" in row.partition(published.dataset)[2]


def test_lists_models_like_a_pattern(capsys):
    assert run(capsys, "list", "*_256_8_p2_k5") == (
        0,
        "model                  parameters         MACs  image  published top-1 in %\n"
        "convmixer_256_8_p2_k5     594,186  148,113,920     32  cifar10 95.21 / 95.26 / 94.17, cifar100 73.92\n",
    )


def test_summarises_a_model_at_its_published_size(capsys):
    assert run(capsys, "summary", "splitmixer_i_256_8") == (0, f"{profile_of('splitmixer_i_256_8', 32, 32)}\n")


@pytest.mark.parametrize("option", [("--image-size", "40"), ("--input-shape", "40", "40")])
def test_summarises_at_other_sizes_and_for_other_classes(capsys, option):
    found = profile_of("splitmixer_i_256_8", 40, 40, num_classes=7)
    assert run(capsys, "summary", "splitmixer_i_256_8", *option, "--num-classes", "7") == (0, f"{found}\n")


def test_height_comes_before_width(capsys):
    found = profile_of("splitmixer_i_256_8", 8, 16)
    assert run(capsys, "summary", "splitmixer_i_256_8", "--input-shape", "8", "16") == (0, f"{found}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summary", "splitmixer_1_256_8"), "There is no model named 'splitmixer_1_256_8'; did you mean "),
        (("summary", "zzz", "--image-size", "32"), "There is no model named 'zzz'; keras_mixers.list_models() names"),
        (("summary", "convmixer_768_32", "--image-size", "3"), "got 3 pixels with patch_size=7"),
        (("list", "zzz*"), "There is no model like 'zzz*'"),
        (("benchmark", "--models", "zzz"), "There is no model named 'zzz'"),
        (("benchmark", "--csv", "no/such/folder.csv"), "csv must be a file in a folder that exists"),
        (("benchmark", "--json", "no/such/folder.json"), "json must be a file in a folder that exists"),
        (("benchmark", "--protocol", "paper", "--batch", "4"), "--protocol paper sets batch, precision and batches"),
    ],
)
def test_refuses_in_one_sentence(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summary",), "the following arguments are required: name"),
        (("summary", "splitmixer_i_256_8", "--image-size", "0"), "--image-size: must be a whole number of at least 1"),
        (("summary", "splitmixer_i_256_8", "--num-classes", "ten"), "must be a whole number of at least 1, got 'ten'"),
        (("summary", "splitmixer_i_256_8", "--image-size", "8", "--input-shape", "8", "8"), "not allowed with"),
        (("benchmark", "--batch", "0"), "--batch: must be a whole number of at least 1"),
        (("benchmark", "--against", "timm"), "invalid choice: 'timm'"),
        (("sumary",), "invalid choice: 'sumary'"),
    ],
)
def test_refuses_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_benchmarks(capsys, tmp_path):
    files = {"--csv": tmp_path / "results.csv", "--json": tmp_path / "results.json"}
    # Of odd kernel: PyTorch warns of even ones, on stderr.
    arguments = "--models convmixer_256_8_p2_k3 --against keras --modes inference --batch 2 --image-size 4".split()
    arguments += [text for option, path in files.items() for text in (option, str(path))]
    status, out = run(capsys, "benchmark", *arguments, "--repetitions", "2")
    assert status == 0
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
        (("--batch", "8", "1", "--precision", "bfloat16", "--batches", "3"),
         {"batch": [8, 1], "precision": "bfloat16", "batches": 3}),
    ],
)  # fmt: skip
def test_hands_its_arguments_to_the_benchmark(monkeypatch, capsys, arguments, settings):
    calls = []
    monkeypatch.setattr(command_line, "benchmark", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert run(capsys, "benchmark", *arguments, "--against", "torch", "--memory")[0] == 0
    [(positional, named)] = calls
    assert positional == (["convmixer_256_8_p2_k5", "splitmixer_i_256_8"], ["torch"])
    others = {"image_size": None, "modes": ("inference", "training"), "repetitions": 7, "memory": True}
    assert named == {**others, **settings}


@pytest.fixture
def report(monkeypatch):
    """What a benchmark that takes no time returns."""
    result = Result(keras.backend.backend(), "zzz", "ours", "inference", 64, 32, "float32", 10.0, 9.0, 11.0, 1.0)
    report = Report(describe_machine(), (result,))
    monkeypatch.setattr(command_line, "benchmark", lambda *args, **kwargs: report)
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
    monkeypatch.setattr(command_line, "benchmark", lambda *args, **kwargs: folder.rmdir() or report)
    assert main(["benchmark", option, str(folder / "results")]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{report}\n"
    assert captured.err.startswith(f"The results could not be written to {str(folder / 'results')!r}: ")
    assert captured.err.count("\n") == 1


def test_helps(capsys):
    status, out = run(capsys)
    assert status == 0
    for name, command in COMMANDS.items():
        assert f" {name} {command.help}" in " ".join(out.split())


def test_starts_from_the_shell():
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "keras_mixers", "summary", "zzz"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "There is no model named 'zzz'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
