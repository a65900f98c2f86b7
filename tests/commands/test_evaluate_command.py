"""`evaluate` gives Keras's accuracy and loss, as a table and as JSON."""

import json
from dataclasses import replace

import keras
import pytest
from drawn_images import write_class_folders, write_tfds

from keras_mixers.data import eval_batches, load_folder
from keras_mixers.inference import evaluate_images, load_trained

pytestmark = pytest.mark.backend_independent


def test_gives_what_keras_computes(run, trained, photos):
    found = json.loads(run("evaluate", trained / "model.keras", "--images", photos, "--json"))
    model = load_trained(trained / "model.keras")
    pixels = model.pixels
    metrics = ["accuracy", keras.metrics.TopKCategoricalAccuracy(2)]
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=metrics)
    batches = eval_batches(load_folder(photos), 7, pixels)
    loss, accuracy, _ = model.evaluate(batches, verbose=0)
    expected = {"top1": pytest.approx(accuracy), "top5": 1.0, "loss": pytest.approx(loss, rel=1e-5)}
    assert found == {"images": 24, **expected}


def test_evaluates_what_train_set_aside(run, refused, trained, tmp_path):
    """Of a folder with train and val, as train takes it."""
    for part, seed in (("train", 1), ("val", 2)):
        write_class_folders(tmp_path / "both" / part, 9, 20, seed)
    model = trained / "model.keras"
    found = json.loads(run("evaluate", model, "--images", tmp_path / "both", "--json"))
    assert found == json.loads(run("evaluate", model, "--images", tmp_path / "both" / "val", "--json"))
    write_class_folders(tmp_path / "one" / "train", 9, 20)
    assert "has train, but none of val" in refused("evaluate", model, "--images", tmp_path / "one")


def test_prints_a_table(run, trained, photos):
    arguments = ("evaluate", trained / "best.keras", "--images", photos, "--limit", 5, "--batch-size", 2)
    found = json.loads(run(*arguments, "--json"))
    heading, row = run(*arguments).splitlines()
    assert heading == "images  top-1 in %  top-5 in %  loss"
    assert row.split() == ["5", f"{100 * found['top1']:.2f}", "100.00", f"{found['loss']:.4f}"]
    heading, flipped = run(*arguments, "--flip").splitlines()
    assert heading == "images  top-1 in %  top-5 in %  top-1 flipped in %  loss"
    assert [*flipped.split()[:3], flipped.split()[-1]] == row.split()


def test_another_crop_than_the_networks(run, refused, trained, photos):
    model = load_trained(trained / "best.keras")
    arguments = ("evaluate", trained / "best.keras", "--images", photos, "--json")
    model.pixels = replace(model.pixels, crop_fraction=0.5)
    found = json.loads(run(*arguments, "--crop-fraction", 0.5))
    assert found == evaluate_images(model, load_folder(photos))
    assert found["loss"] != json.loads(run(*arguments))["loss"]
    assert "crop_fraction must be above 0 and at most 1" in refused(*arguments, "--crop-fraction", 2)


def test_evaluates_on_a_data_set_of_tfds(run, refused, trained, tmp_path):
    write_tfds("rock_paper_scissors", tmp_path, {"train": 4, "test": 6}, 300)
    model = load_trained(trained / "model.keras")
    arguments = ("--dataset", "rock_paper_scissors", "--data-dir", tmp_path, "--json")
    sentence = refused("evaluate", trained / "model.keras", *arguments)
    assert "class 0 is 'blue' to the network, and 'rock' is that of the images" in sentence
    model.class_names = ("rock", "paper", "scissors")
    model.save(tmp_path / "other.keras")
    assert json.loads(run("evaluate", tmp_path / "other.keras", *arguments))["images"] == 6
    assert json.loads(run("evaluate", tmp_path / "other.keras", *arguments, "--split", "train[:2]"))["images"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.keras", "--images", "."), "There is no network at 'no.keras'; train writes model.keras and best.keras."),
        (("model.keras", "--images", "no/folder"), "The image folder 'no/folder' does not exist."),
        (("model.keras", "--dataset", "cifar10", "--data-dir", ".", "--no-download"), "'cifar10' is not in '.', and"),
        (("model.keras", "--dataset", "cifar11"), "TFDS has no data set 'cifar11'; did you mean cifar10"),
        (("metrics.json", "--images", "."), "'metrics.json' is no .keras file, or was cut short"),
        (("model.keras", "--images", "."), "class folders of '.' hold no images"),
    ],
)
def test_refuses_in_one_sentence(monkeypatch, refused, trained, arguments, message):
    monkeypatch.chdir(trained)
    assert message in refused("evaluate", *arguments)
