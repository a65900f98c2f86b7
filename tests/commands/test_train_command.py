"""`train` carries out a recipe: what it leaves, that it resumes, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from drawn_images import CLASSES

from keras_mixers.__main__ import main
from keras_mixers.data import Augmentation
from keras_mixers.inference import load_trained
from keras_mixers.training import RECIPES, Recipe
from keras_mixers.training.history import read_history

pytestmark = pytest.mark.backend_independent


def test_trains_on_images_of_ones_own(run, train_arguments, tmp_path):
    out = run(*train_arguments(tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert out == f"Test accuracy {100 * metrics['top1']:.2f} %: {tmp_path / 'run'}\n"
    recipe = Recipe.from_json(metrics["recipe"])
    assert (recipe.dataset, recipe.epochs, recipe.batch_size, recipe.learning_rate) == ("folder", 3, 8, 0.02)
    assert (recipe.augmentation, recipe.pixels.size) == (Augmentation(flip=True), 16)
    history = read_history(tmp_path / "run" / "history.csv")
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    model = load_trained(tmp_path / "run" / "model.keras")
    assert (model.class_names, model.pixels) == (CLASSES, recipe.pixels)


def test_resumes_a_run_that_was_broken_off(run, train_arguments, trained, tmp_path):
    broken = shutil.copytree(trained, tmp_path / "broken")
    for path in (broken / "model.keras", broken / "metrics.json", *(broken / "checkpoints").glob("epoch_0003*")):
        path.unlink()
    run(*train_arguments(broken, "--resume"))
    for row, expected in zip(read_history(broken / "history.csv"), read_history(trained / "history.csv"), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    weights, expected = (load_trained(folder / "model.keras").get_weights() for folder in (broken, trained))
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-5)


def test_starts_from_trained_weights_and_keeps_those_of_frozen_blocks(run, train_arguments, trained, tmp_path):
    run(*train_arguments(tmp_path / "run", "--weights", trained / "model.keras", "--freeze", 1))
    model, start = (load_trained(folder / "model.keras") for folder in (tmp_path / "run", trained))
    for layer, kept in (("patch_embed", True), ("block_0_channel", True), ("block_1_channel", False), ("head", False)):
        weight, before = (network.get_layer(layer).get_weights()[0] for network in (model, start))
        assert np.array_equal(weight, before) == kept


def test_shows_progress_and_writes_logs_for_tensorboard(capsys, train_arguments, tmp_path):
    arguments = train_arguments(tmp_path / "run", "--tensorboard", "--epochs", 2)
    assert main([str(argument) for argument in arguments if argument != "--quiet"]) == 0
    shown = capsys.readouterr().err
    assert "epoch 1/2" in shown
    assert "epoch 2/2" in shown
    assert any((tmp_path / "run" / "tensorboard").rglob("*tfevents*"))


def test_lists_the_recipes(run):
    heading, *rows = run("train", "list").splitlines()
    assert heading.split("  ")[0] == "recipe"
    for row, (name, recipe) in zip(rows, RECIPES.items(), strict=True):
        published = [f"{recipe.published:.2f}"] if recipe.published else []
        assert row.split() == [name, recipe.model, recipe.dataset, str(recipe.epochs), *published]


def test_a_loss_that_is_not_a_number_ends_the_run(refused, train_arguments, tmp_path):
    sentence = refused(*train_arguments(tmp_path / "run", "--set", "learning_rate=1e38", "clip_norm=None"), status=1)
    assert sentence.startswith("The loss became ")
    assert sentence.endswith("Lower learning_rate, or set clip_norm.")


def test_names_an_image_that_is_damaged(refused, photos, train_arguments, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    for i, path in enumerate(sorted((folder / "red").iterdir())):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content[:-9] if i % 2 else content)
    sentence = refused(*train_arguments(tmp_path / "run", "--images", folder))
    assert sentence.startswith(f"The image '{folder}/red/0")
    assert sentence.endswith(".png' cannot be read: it is gone, no image, or damaged; replace it.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cifar10_smok",), "There is no recipe named 'cifar10_smok'; did you mean 'cifar10_smoke'"),
        (("cifar10_smoke", "--set", "epoch=3"), "A recipe has no 'epoch'; did you mean 'epochs'?"),
        (("cifar10_smoke", "--set", "pixels.sise=16"), "A recipe has no 'pixels.sise'; did you mean 'pixels.size'?"),
        (("cifar10_smoke", "--set", "model_arguments.dims=3"), "may set; did you mean 'model_arguments.dim'"),
        (("cifar10_smoke", "--epochs", "many"), "epochs must be a whole number of at least 1, got epochs='many'."),
        (("cifar10_smoke", "--batch-size", 0), "batch_size must be a whole number of at least 1, got batch_size=0."),
        (("cifar10_smoke", "--images", "no/folder"), "The image folder 'no/folder' does not exist."),
        (("cifar10_smoke", "--data-dir", "no", "--no-download"), "is not in 'no', and downloads are switched"),
        (("cifar10_smoke", "--set", "dataset=cifar11"), "TFDS has no data set 'cifar11'; did you mean cifar10"),
        (("cifar10_smoke", "--set", "dataset=folder"), "The recipe is for images of your own"),
    ],
)
def test_refuses_in_one_sentence(refused, tmp_path, arguments, message):
    assert message in refused("train", *arguments, "--output-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_a_start_that_failed_is_as_good_as_new(refused, run, train_arguments, tmp_path):
    assert "weights at 'no.keras'" in refused(*train_arguments(tmp_path / "run", "--weights", "no.keras"))
    assert not (tmp_path / "run").exists()
    run(*train_arguments(tmp_path / "run"))


def test_resumes_only_with_the_images_and_the_split_it_began_with(refused, run, photos, train_arguments, tmp_path):
    run(*train_arguments(tmp_path / "run", "--epochs", 1))
    again = (tmp_path / "run", "--epochs", 1, "--resume")
    assert "began with validation_part=0.25; resume it with the same" in refused(
        *train_arguments(*again, "--validation-part", 0.5)
    )
    moved = shutil.copytree(photos, tmp_path / "moved")
    run(*train_arguments(*again, "--images", moved))
    (moved / "red" / "002.png").rename(moved / "red" / "other.png")
    assert "began with other " in refused(*train_arguments(*again, "--images", moved))
    start = json.loads((tmp_path / "run" / "metrics.json").read_text())["start"]
    assert start["class_names"] == list(CLASSES)
    assert start["train_images"]["count"] + start["test_images"]["count"] == 24
    assert (start["train_images"]["validation_part"], start["train_images"]["seed"]) == (0.25, 42)


@pytest.mark.parametrize(
    ("again", "arguments", "message"),
    [
        (True, (), "holds a run already; resume it with resume=True (--resume), or choose another folder."),
        (True, ("--resume", "--set", "learning_rate=1"), "began with learning_rate=0.02; resume it with the same rec"),
        (False, ("--validation-part", 1), "validation_part must be in (0, 1), got validation_part=1.0."),
        (False, ("--weights", "no.keras"), "There is no file of weights at 'no.keras'."),
        (False, ("--weights", "imagenet"), "weights of 'splitmixer_i_256_8' by name are 'cifar10', got weights='imag"),
        (False, ("--freeze", 3), "freeze must be a number of blocks from 0 to 2, got freeze=3."),
    ],
)
def test_refuses_what_does_not_fit(refused, train_arguments, trained, tmp_path, again, arguments, message):
    assert message in refused(*train_arguments(trained if again else tmp_path / "run", *arguments))


def test_a_folder_that_cannot_be_written_is_named(refused, train_arguments, tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refused(*train_arguments(tmp_path / "file" / "run"), status=1)
    assert sentence.startswith(f"output_dir='{tmp_path}/file/run' cannot be written to: ")
