"""A recipe is carried out: what it leaves, that it resumes after it was killed, and what it refuses."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.callbacks.callback_list import CallbackList
from small_run import CLASSES, RECIPE, BreakOff, assert_same_curve, assert_same_weights, images, train

from keras_mixers import environment
from keras_mixers.backends import assume_device
from keras_mixers.data import Augmentation, Images
from keras_mixers.inference import load_trained
from keras_mixers.training import Recipe, fit, folder, get_recipe
from keras_mixers.training.callbacks import CHECK_EVERY, Progress
from keras_mixers.training.checkpoints import Position, last_checkpoint
from keras_mixers.training.devices import Devices
from keras_mixers.training.history import read_history
from keras_mixers.training.prepare import compile_model, make_model
from keras_mixers.training.run import read_metrics

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return train(tmp_path_factory.mktemp("unbroken") / "run")


class Spoil(BreakOff):
    """Makes a weight no number there."""

    def act(self):
        weight = self.model.trainable_variables[0]
        weight.assign(np.full(weight.shape, np.nan, "float32"))


def test_learns_and_leaves_everything_in_one_folder(unbroken):
    names = {path.name for path in unbroken.directory.iterdir() if not path.name.startswith(".")}
    assert names - {"curves.png"} == {
        "best.keras", "checkpoints", "history.csv", "metrics.json", "model.keras", "recipe.json",
    }  # fmt: skip
    assert [row["epoch"] for row in unbroken.history] == [1, 2, 3, 4]
    assert unbroken.history[-1]["loss"] < unbroken.history[0]["loss"]
    metrics = json.loads((unbroken.directory / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(unbroken.history[-1]["val_accuracy"])
    assert Recipe.from_json(metrics["recipe"]) == RECIPE
    old = unbroken.directory.with_name("metrics.json")  # as version 0.1 named them
    old.write_text(json.dumps({"test_accuracy": metrics["top1"], "test_loss": metrics["loss"]}))
    assert read_metrics(old).items() <= read_metrics(unbroken.directory / "metrics.json").items()
    model = load_trained(unbroken.directory / "model.keras")
    assert (model.class_names, model.pixels) == (CLASSES, RECIPE.pixels)
    assert_same_weights(model, unbroken.model, rtol=0, atol=0)


def test_the_best_network_is_that_of_the_best_epoch(unbroken):
    from keras_mixers.inference import evaluate_images

    best = max(row["val_accuracy"] for row in unbroken.history)
    found = evaluate_images(load_trained(unbroken.directory / "best.keras"), images(20, seed=1))
    assert found["top1"] == pytest.approx(best)


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(unbroken, tmp_path):
    assert_same_curve(train(tmp_path / "same"), unbroken)
    other = train(tmp_path / "other", replace(RECIPE, seed=43, epochs=1))
    assert abs(other.history[0]["loss"] - unbroken.history[0]["loss"]) > 1e-3


def test_a_run_broken_off_in_an_epoch_ends_as_an_unbroken_one(unbroken, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", callbacks=[BreakOff(3, 2)])
    resumed = train(tmp_path / "run", resume=True)
    assert_same_curve(resumed, unbroken)
    assert_same_weights(resumed.model, unbroken.model)


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"ema": 0.9, "accumulation": 2, "epochs": 2}, marks=pytest.mark.backend_independent)],
    ids=str,
)
def test_a_run_resumes_from_a_checkpoint_within_an_epoch(changes, unbroken, tmp_path):
    recipe = replace(RECIPE, **changes)
    expected = train(tmp_path / "unbroken", recipe) if changes else unbroken
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", recipe, checkpoint_minutes=1e-9, callbacks=[BreakOff(0, 2)])
    position = last_checkpoint(tmp_path / "run" / "checkpoints").position
    assert (position.epoch, position.step) == (0, 2)
    seen = []
    counting = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    resumed = train(tmp_path / "run", recipe, resume=True, callbacks=[counting])
    assert len(seen) == recipe.epochs * -(-40 * recipe.accumulation // 16) - 2
    assert_same_curve(resumed, expected)
    assert_same_weights(resumed.model, expected.model)


def test_a_killed_process_is_resumed(unbroken, tmp_path):
    code = (
        "import signal; from pathlib import Path; from small_run import BreakOff, train; "
        f"train(Path({str(tmp_path / 'run')!r}), callbacks=[BreakOff(2, 1, signal.SIGKILL)])"
    )
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.keras").exists()
    assert_same_curve(train(tmp_path / "run", resume=True), unbroken)


@pytest.fixture
def ctrl_c():
    """Gives a function that sets what Ctrl-C does, which tests ignore that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


@pytest.mark.backend_independent
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("ctrl_c")
def test_sigterm_and_ctrl_c_write_a_checkpoint_and_say_so(asked, unbroken, tmp_path, capsys):
    before = signal.getsignal(asked)
    told = r"Stopped in epoch 2 after 2 batches; --resume continues from .*0001_step_0000"
    with pytest.raises(SystemExit, match=told) as stopped:
        train(tmp_path / "run", callbacks=[BreakOff(1, 1, asked)])
    if asked == signal.SIGINT:
        assert stopped.value.code == 130
        assert capsys.readouterr().err == f"\n{stopped.value}\n"
    assert signal.getsignal(asked) is before
    assert_same_curve(train(tmp_path / "run", resume=True), unbroken)


@pytest.mark.backend_independent
@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", callbacks=[BreakOff(1, 1, signal.SIGINT, signal.SIGINT)])


@pytest.mark.backend_independent
def test_a_run_in_the_background_ignores_ctrl_c(ctrl_c, unbroken, tmp_path):
    ctrl_c(signal.SIG_IGN)
    run = train(tmp_path / "run", callbacks=[BreakOff(1, 1, signal.SIGINT, signal.SIGINT)])
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert_same_curve(run, unbroken)


@pytest.mark.backend_independent
def test_asked_to_stop_at_the_end_of_an_epoch(tmp_path):
    ask = keras.callbacks.LambdaCallback(on_test_end=lambda logs: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match=r"Stopped after epoch 1; --resume continues from '.*epoch_0001_step_000000"):
        train(tmp_path / "run", callbacks=[ask])


def spoilt_images(count=40, **_):
    """Images of which one cannot be read."""

    def decode(record):
        tf.debugging.assert_less(record, count - 1)
        return tf.zeros((8, 8, 3), tf.uint8)

    return Images(tf.data.Dataset.range(count).map(lambda i: (i, i % 3)), count, CLASSES, decode)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("recipe", "arguments", "error"),
    [
        ({}, {"weights": "no.keras"}, FileNotFoundError),
        ({}, {"freeze": 7}, ValueError),
        ({"model_arguments": {"dim": 0}}, {}, ValueError),
        ({"learning_rate": 1e38}, {}, FloatingPointError),
        ({"pixels": replace(RECIPE.pixels, size=1)}, {}, ValueError),
        ({}, {"train_images": spoilt_images()}, Exception),
        ({}, {"test_images": spoilt_images(20)}, Exception),
        ({}, {"test_images": replace(images(20), class_names=("a", "b", "c"))}, ValueError),
        ({"dataset": "cifar10"}, {"train_images": None, "test_images": None, "download": False}, FileNotFoundError),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(recipe, arguments, error, tmp_path):
    with pytest.raises(error):
        train(tmp_path / "runs" / "run", replace(RECIPE, **recipe), data_dir=tmp_path / "data", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_independent
def test_a_start_that_fails_leaves_what_others_wrote(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="freeze"):
        train(tmp_path, freeze=7)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.backend_independent
def test_a_folder_without_a_checkpoint_holds_no_run(tmp_path):
    """A start that was killed left its recipe: another one may begin there."""
    (tmp_path / "recipe.json").write_text(json.dumps(replace(RECIPE, epochs=9).to_json()))
    assert len(train(tmp_path, replace(RECIPE, epochs=1)).history) == 1


@pytest.mark.backend_independent
def test_two_runs_at_once_in_a_folder_are_refused(tmp_path):
    class Second(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            for resume in (True, False):
                with pytest.raises(ValueError, match="Another process trains in output_dir=.*choose another folder"):
                    train(tmp_path / "run", resume=resume)

    run = train(tmp_path / "run", replace(RECIPE, epochs=1), callbacks=[Second()])
    assert (run.directory / "model.keras").exists()


@pytest.mark.backend_independent
def test_resumes_only_with_what_it_began_with(tmp_path):
    recipe = replace(RECIPE, epochs=1)
    run = train(tmp_path / "run", recipe)
    counts = {"train_images": {"count": 40}, "test_images": {"count": 20}}
    assert run.metrics["start"] == {"class_names": list(CLASSES), **counts, "weights": None, "freeze": 0}
    for arguments, told in (
        ({"train_images": images(39)}, r"began with other train_images \(40 where there are 39\); resume it with"),
        ({"test_images": images(19)}, r"other test_images \(20 where there are 19\)"),
        ({"freeze": 1}, "began with freeze=0; "),
        ({"weights": run.directory / "model.keras"}, "began with weights=None; "),
    ):
        with pytest.raises(ValueError, match=told):
            train(tmp_path / "run", recipe, resume=True, **arguments)
    path = last_checkpoint(run.directory / "checkpoints").path
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    np.savez(path, **{**kept, "notes": np.array(json.dumps({"best": 0.5}))})  # as earlier versions wrote them
    train(tmp_path / "run", recipe, resume=True)


@pytest.mark.backend_independent
def test_resumes_with_the_same_classes_or_with_names_for_numbers(tmp_path):
    start = {"train_images": {"count": 40}, "test_images": {"count": 20}, "weights": None, "freeze": 0}
    named = {**start, "class_names": ["red", "green", "blue"]}
    for before in (named, {**start, "class_names": ["0", "1", "2"]}):
        folder.check_same_start(tmp_path, before, named)
    with pytest.raises(ValueError, match="began with the classes green, red, blue; resume it with the same images"):
        folder.check_same_start(tmp_path, {**start, "class_names": ["green", "red", "blue"]}, named)


@pytest.mark.backend_independent
def test_tells_what_it_trains_and_where_it_is(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", verbose=1, checkpoint_minutes=1e-9, callbacks=[BreakOff(1, 2)])
    first, *lines = capsys.readouterr().err.splitlines()
    backend = keras.backend.backend()
    assert re.fullmatch(rf"40 images of 3 classes, 20 to test on; {backend} \S+ on .+; {tmp_path}/run", first)
    assert len(lines) == 1
    assert lines[0].startswith("epoch 1/4  ")
    train(tmp_path / "run", verbose=1, resume=True)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.endswith(f"{tmp_path}/run, from epoch 2, batch 3")
    assert [line.split()[1] for line in lines] == ["2/4", "3/4", "4/4"]
    assert [line.endswith(" 0:00 left") for line in lines[-1:]] == [True]


@pytest.mark.backend_independent
@pytest.mark.parametrize(("seconds", "left"), [(10, "0:20"), (1861.5, "1:02:03")])
def test_the_time_left_is_that_of_the_whole_run(seconds, left):
    """Six of twelve batches were done before, two more have taken so many seconds, and four are to come."""
    shown = io.StringIO()
    recipe, data = replace(RECIPE, epochs=3), {"train_images": images(40), "test_images": images(20)}
    where = {"devices": Devices(), "directory": "runs", "position": Position(1, 2), "batches_per_epoch": 4}
    progress = Progress(SimpleNamespace(recipe=recipe, **data, **where), stream=shown)
    progress.set_params({"epochs": 2, "steps": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(1)
    progress.start -= seconds
    progress.on_train_batch_begin(0)
    progress.on_train_batch_begin(1)
    progress.on_epoch_end(1, {})
    _, line = shown.getvalue().splitlines()
    assert line.startswith("epoch 2/3  ")
    assert line.endswith(f" {left} left")


@pytest.mark.backend_independent
def test_a_finished_run_is_only_evaluated_again(unbroken, tmp_path):
    recipe = replace(RECIPE, epochs=1, ema=0.5)
    first = train(tmp_path / "run", recipe)
    again = train(tmp_path / "run", recipe, resume=True)
    assert again.metrics["loss"] == pytest.approx(first.metrics["loss"], rel=1e-5)
    assert len(again.history) == 1


def test_a_loss_that_is_not_a_number_stops_the_run_and_spoils_nothing(tmp_path):
    message = r"The loss became nan in epoch 2 by step 1; the last good weights are in 'epoch_0001_step_000000.npz'"
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path / "run", callbacks=[Spoil(1, 0)])
    kept = last_checkpoint(tmp_path / "run" / "checkpoints")
    assert all(np.isfinite(value).all() for value in kept.values["model"].values())


@pytest.mark.backend_independent
def test_a_loss_is_looked_at_every_few_batches_and_before_a_checkpoint(tmp_path):
    recipe = replace(RECIPE, batch_size=1, epochs=1)
    for count, minutes, step in ((CHECK_EVERY + 9, 15, CHECK_EVERY + 1), (9, 15, "its last step"), (9, 1e-9, 3)):
        told = f"nan in epoch 1 by .*{step}; "
        with pytest.raises(FloatingPointError, match=told):
            train(tmp_path, recipe, train_images=images(count), checkpoint_minutes=minutes, callbacks=[Spoil(0, 2)])
        kept = last_checkpoint(tmp_path / "checkpoints")
        assert kept is None or all(np.isfinite(value).all() for value in kept.values["model"].values())
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)


@pytest.mark.backend_independent
def test_no_callback_has_the_host_wait_for_the_device_at_each_step(tmp_path, monkeypatch):
    lists = []
    configure = CallbackList._configure_async_dispatch
    monkeypatch.setattr(
        CallbackList, "_configure_async_dispatch", lambda self, each: (lists.append(self), configure(self, each))
    )
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    train(tmp_path / "run", replace(RECIPE, ema=0.9, epochs=1), verbose=1)
    callbacks = {type(callback).__name__ for callback in lists[0].callbacks}
    assert {"Checkpoints", "KeepBest", "HistoryWriter", "Progress"} <= callbacks
    alone = CallbackList([])  # TensorFlow reads the loss at each step, whatever the callbacks are
    assert (lists[0]._async_train, lists[0]._async_test) == (alone._async_train, alone._async_test)
    assert re.search(r"epoch 1/1  1/3 batches  .*loss \d\.\d{4}", shown.getvalue())


def test_a_run_of_version_0_1_resumes(tmp_path):
    """Its checkpoints name no variables; TensorFlow wrote them, and the curve that an unbroken run gave there."""
    old = ROOT / "tests" / "files_of_0_1" / "run"
    shutil.copytree(old, tmp_path / "run")
    run = train(tmp_path / "run", resume=True)
    expected = read_history(old / "expected_history.csv")
    assert len(run.history) == len(expected) == 4
    close = 1e-4 if keras.backend.backend() == "tensorflow" else 1e-2
    for row, other in zip(run.history, expected, strict=True):
        for name in ("epoch", "loss", "val_loss", "learning_rate"):
            assert row[name] == pytest.approx(other[name], rel=close, abs=close), (name, row["epoch"])


@pytest.mark.backend_independent
@pytest.mark.parametrize("bytes_of_a_file", [2_000, 20_000])
def test_a_disk_that_is_full_ends_the_run_with_a_sentence_and_it_resumes(bytes_of_a_file, unbroken, tmp_path):
    """The best network cannot be written, and then the checkpoint; a limit on files stands for the disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, before[1]))
    try:
        with pytest.raises(OSError, match=r"(cannot|could not) be written.*: File too large; .* whole.*resume"):
            train(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same_curve(train(tmp_path / "run", resume=True), unbroken)


def test_averaged_weights_are_what_is_evaluated_and_kept(tmp_path):
    """With momentum m, an average a follows weights w as a <- m a + (1 - m) w after each step."""
    recipe = replace(RECIPE, epochs=1, ema=0.5)
    followed = []

    class Follow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weight = keras.ops.convert_to_numpy(self.model.trainable_variables[0]).copy()
            followed.append(weight if not followed else 0.5 * followed[-1] + 0.5 * weight)

    run = train(tmp_path / "run", recipe, callbacks=[Follow()])
    average = keras.ops.convert_to_numpy(run.model.trainable_variables[0])
    assert len(followed) == 3
    np.testing.assert_allclose(average, followed[-1], rtol=1e-5, atol=1e-6)
    best = load_trained(tmp_path / "run" / "best.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(best.trainable_variables[0]), average, rtol=1e-5, atol=1e-6)
    assert run.history[0]["val_loss"] == pytest.approx(run.metrics["loss"], rel=1e-5)
    raw = last_checkpoint(tmp_path / "run" / "checkpoints").values["model"]["patch_embed/convolution/kernel"]
    assert np.abs(raw - average).max() > 1e-5


def test_gradients_of_two_half_batches_are_those_of_a_whole(tmp_path):
    """Without norms, of which each takes the statistics of its own batch; in the order of one epoch."""
    network = {**RECIPE.model_arguments, "normalization": None}
    recipe = replace(RECIPE, augmentation=Augmentation(), model_arguments=network, epochs=2, learning_rate=0.01)
    whole = train(tmp_path / "whole", recipe, train_images=images(32))
    halves = train(tmp_path / "halves", replace(recipe, accumulation=2), train_images=images(32))
    assert int(halves.model.optimizer.iterations) == int(whole.model.optimizer.iterations) == 4
    assert_same_weights(halves.model, whole.model, rtol=1e-3, atol=1e-4)


def test_biases_and_norms_decay_unless_they_are_left_out():
    for decay_all in (True, False):
        model = make_model(replace(RECIPE, decay_all=decay_all), CLASSES)
        compile_model(model, replace(RECIPE, decay_all=decay_all), batches_per_epoch=3)
        for weight in model.trainable_variables:
            is_kernel = weight.path.endswith("kernel")
            assert model.optimizer._use_weight_decay(weight) == (decay_all or is_kernel), weight.path


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_trains(precision, tmp_path):
    run = train(tmp_path / "run", replace(RECIPE, precision=precision, epochs=2))
    assert run.model.get_layer("block_0_channel").compute_dtype == precision
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize(
    ("backend", "device", "flags", "precision"),
    [
        ("torch", "cpu", "fma avx512f avx512_bf16", "bfloat16"),
        ("tensorflow", "cpu", "amx_bf16 amx_tile", "bfloat16"),
        ("jax", "cpu", "avx512_bf16", "float32"),
        ("torch", "cpu", "fma avx2 avx512f", "float32"),
        ("jax", "gpu", "", "float16"),
        ("jax", "tpu", "", "bfloat16"),
        ("torch", "mps", "avx512_bf16", "float32"),
    ],
)
def test_the_fastest_precision(backend, device, flags, precision, monkeypatch):
    monkeypatch.setattr(environment, "_cpuinfo", {"flags": flags}.get)
    monkeypatch.setattr(environment.backends, "FAST_BFLOAT16_ON_CPU", backend != "jax")
    with assume_device(device):
        assert environment.fastest_precision() == precision


def test_precision_auto_becomes_the_fastest_and_stays_on_resume(tmp_path, monkeypatch):
    recipe = replace(RECIPE, precision="auto", epochs=1)
    monkeypatch.setattr(folder, "fastest_precision", lambda: "bfloat16")
    run = train(tmp_path / "run", recipe)
    assert run.model.get_layer("block_0_channel").compute_dtype == "bfloat16"
    assert run.metrics["recipe"]["precision"] == "bfloat16"
    monkeypatch.setattr(folder, "fastest_precision", lambda: "float32")
    assert train(tmp_path / "run", recipe, resume=True).metrics["recipe"]["precision"] == "bfloat16"


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("text", ['{"model": "splitm', "[]", "{}", "null"])
def test_a_damaged_recipe_is_named_and_nothing_is_lost(text, precision, unbroken, tmp_path):
    shutil.copytree(unbroken.directory, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"recipe.json' is damaged"):
        train(tmp_path / "run", replace(RECIPE, precision=precision), resume=True)
    assert (tmp_path / "run" / "recipe.json").read_text() == text
    assert (tmp_path / "run" / "model.keras").exists()


def test_starts_from_weights_with_a_new_head_and_frozen_blocks(unbroken, tmp_path):
    recipe = replace(RECIPE, epochs=1)
    run = train(tmp_path / "run", recipe, weights=unbroken.directory / "model.keras", freeze=1)
    for name in ("patch_embed", "block_0_spatial", "block_0_channel"):
        pairs = zip(run.model.get_layer(name).get_weights(), unbroken.model.get_layer(name).get_weights(), strict=True)
        for weight, expected in pairs:
            np.testing.assert_array_equal(weight, expected)
    moved, before = (model.get_layer("head").get_weights()[0] for model in (run.model, unbroken.model))
    assert np.abs(moved - before).max() > 1e-2
    with pytest.raises(ValueError, match=r"freeze must be a number of blocks from 0 to 1, got freeze=3"):
        train(tmp_path / "more", recipe, freeze=3)


def test_refuses_what_it_cannot_carry_out(unbroken, tmp_path):
    other, food = replace(RECIPE, learning_rate=0.5), get_recipe("food101_splitmixer_i").change({"pixels.size": 64})
    (tmp_path / "file").write_text("")
    in_file, cifar10 = tmp_path / "file" / "run", {"data_dir": tmp_path, "download": False}
    for recipe, arguments, error, told in (
        (RECIPE, {"output_dir": unbroken.directory}, ValueError, r"holds a run already; .*resume=True"),
        (other, {"output_dir": unbroken.directory, "resume": True}, ValueError,
         r"began with .*learning_rate=0.02; resume it with the same recipe"),
        ("cifar10_splitmixer_6", {}, ValueError, r"There is no recipe named 'cifar10_splitmixer_6'; did you mean"),
        (RECIPE, {}, ValueError, r"for images of your own: name their folder with --images"),
        (food, {}, ValueError, r"got augmentation.resize=230 and pixels.size=64; set augmentation.resize=66"),
        (RECIPE, {"train_images": images()}, ValueError, r"must be given together"),
        ("cifar10_smoke", cifar10, FileNotFoundError, r"'cifar10' is not in .*downloads are switched off"),
        (RECIPE, {"output_dir": in_file, "train_images": images(), "test_images": images()}, OSError,
         r"cannot be written to: .*; choose another folder"),
    ):  # fmt: skip
        with pytest.raises(error, match=told):
            fit(recipe, **{"output_dir": tmp_path / "new", **arguments})
