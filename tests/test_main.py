"""The command line, in this process and as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_mixers
from keras_mixers.__main__ import COMMANDS, main
from keras_mixers.commands.command import Command

pytestmark = pytest.mark.backend_independent

ROOT = Path(__file__).parents[1]


def test_helps(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f" {name} {command.help}" in " ".join(out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(capsys, name):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summary",), "the following arguments are required: name"),
        (("summary", "splitmixer_i_256_8", "--image-size", "0"), "--image-size: must be a whole number of at least 1"),
        (("summary", "splitmixer_i_256_8", "--num-classes", "ten"), "must be a whole number of at least 1, got 'ten'"),
        (("summary", "splitmixer_i_256_8", "--image-size", "8", "--input-shape", "8", "8"), "not allowed with"),
        (("benchmark", "--batch", "0"), "--batch: must be a whole number of at least 1"),
        (("benchmark", "--against", "timm"), "invalid choice: 'timm'"),
        (("train",), "the following arguments are required: recipe"),
        (("train", "cifar10_smoke", "--set", "epochs"), "--set: must be NAME=VALUE, such as epochs=25, got 'epochs'"),
        (("train", "cifar10_smoke", "--set", "=3"), "--set: must be NAME=VALUE, such as epochs=25, got '=3'"),
        (("train", "cifar10_smoke", "--checkpoint-minutes", "0"), "must be a number above 0, got '0'"),
        (("train", "cifar10_smoke", "--checkpoint-minutes", "nan"), "must be a number above 0, got 'nan'"),
        (("train", "cifar10_smoke", "--validation-part", "a"), "--validation-part: must be a number above 0, got 'a'"),
        (("train", "cifar10_smoke", "--freeze", "all"), "--freeze: invalid int value: 'all'"),
        (("evaluate", "model.keras"), "one of the arguments --dataset --images is required"),
        (("evaluate", "m.keras", "--dataset", "cifar10", "--images", "."), "--images: not allowed with argument"),
        (("predict", "model.keras"), "the following arguments are required: IMAGE"),
        (("predict", "model.keras", "dog.jpg", "--top", "0"), "--top: must be a whole number of at least 1"),
        (("sumary",), "invalid choice: 'sumary'"),
    ],
)
def test_refuses_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("epochs must be a whole number."), 2),
        (FileNotFoundError("There is no network."), 2),
        (ImportError("keras_mixers.data needs keras_cv."), 2),
        (OSError("The disk is full."), 1),
        (FloatingPointError("The loss became nan."), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_says_in_one_sentence_why_it_stops(monkeypatch, capsys, error, status):
    def run(arguments):
        raise error

    monkeypatch.setitem(COMMANDS, "list", Command("fails", lambda parser: None, run))
    assert main(["list"]) == status
    assert capsys.readouterr() == ("", f"{str(error) or 'Stopped.'}\n")


def test_an_error_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setitem(COMMANDS, "list", Command("fails", lambda parser: None, lambda arguments: {}["no such key"]))
    with pytest.raises(KeyError):
        main(["list"])


def in_another_process(*arguments, stdout=subprocess.PIPE):
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, **pipes)


def test_starts_from_the_shell():
    done = in_another_process("-m", "keras_mixers", "summary", "zzz")
    assert done.returncode == 2
    assert "There is no model named 'zzz'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="there TensorFlow is what computes")
def test_only_commands_that_read_data_sets_import_tensorflow():
    code = (
        "import sys; from keras_mixers.__main__ import main; "
        "main(['list', '*_256_8_p2_k5']); main(['summary', 'splitmixer_i_256_8']); print('tensorflow' in sys.modules)"
    )
    done = in_another_process("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_debug_shows_where_an_error_comes_from(capsys):
    for arguments in (["--debug", "summary", "zzz"], ["summary", "zzz", "--debug"]):
        with pytest.raises(ValueError, match="no model named 'zzz'"):
            main(arguments)
    assert main(["summary", "zzz"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_tells_its_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"keras_mixers {keras_mixers.__version__}\n"


def test_runs_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras-mixers", "summary", "zzz"])
    assert main() == 2
    assert "no model named 'zzz'" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_gets_no_complaint():
    reading, writing = os.pipe()
    os.close(reading)  # as head does before all is written
    done = in_another_process("-m", "keras_mixers", "list", "splitmixer_i_256_8*", stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert "roken" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="there TensorFlow is what computes")
def test_the_recipes_are_listed_without_what_trains_them():
    """TensorFlow, KerasCV and TFDS are not installed; whoever trains is told so."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras_cv', 'tensorflow_datasets'])); "
        "from keras_mixers.__main__ import main; print(main(['train', 'list']), main(['train', 'cifar10_smoke']))"
    )
    done = in_another_process("-c", code)
    assert "cifar10_splitmixer_i " in done.stdout
    assert done.stdout.splitlines()[-1] == "0 2"
    assert 'pip install "keras-mixers[train]"' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("start", "is_own"),
    [
        (("-m", "keras_mixers", "list"), True),
        (("-c", "import keras_mixers"), False),
        (("-c", "import keras_mixers", "-m", "keras_mixers"), False),
    ],
)
def test_threads_and_onednn_are_set_only_in_a_process_of_its_own(start, is_own, tmp_path):
    """A hook that runs when Python ends tells what the process has set."""
    names = ("OMP_WAIT_POLICY", "TF_ENABLE_ONEDNN_OPTS")
    tell = f"print(*map(os.environ.get, {names}), file=sys.stderr)"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, os, sys\natexit.register(lambda: {tell})")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, *start], env=environment, capture_output=True, text=True, check=True)
    onednn = str(int(keras.backend.backend() == "tensorflow"))
    assert done.stderr.split()[-2:] == (["PASSIVE", onednn] if is_own else ["None", "None"])
