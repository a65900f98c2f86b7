"""`predict` gives the most probable classes of image files, as a table and as JSON."""

import json

import keras
import numpy as np
import pytest
from drawn_images import CLASSES
from PIL import Image

import keras_mixers
from keras_mixers.inference import load_trained

pytestmark = pytest.mark.backend_independent


@pytest.fixture
def images(photos):
    return [photos / name / path for name, path in (("red", "002.png"), ("blue", "000.png"))]


def test_gives_the_softmax_of_the_networks_logits(run, trained, images):
    found = json.loads(run("predict", trained / "model.keras", *images, "--json"))
    assert list(found) == [str(path) for path in images]
    model = load_trained(trained / "model.keras")
    pixels = [np.asarray(Image.open(path)) for path in images]
    logits = model.predict(model.pixels.preprocess(pixels, data_format="channels_last"), verbose=0)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    for probabilities, row in zip(found.values(), expected, strict=True):
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
        assert sum(probabilities.values()) == pytest.approx(1)
        assert [probabilities[name] for name in CLASSES] == pytest.approx(row.tolist(), rel=1e-4)


def test_prints_a_table(run, trained, images):
    found = json.loads(run("predict", trained / "model.keras", *images, "--json", "--top", 2))
    heading, *rows = run("predict", trained / "model.keras", *images, "--top", 2).splitlines()
    assert heading.split() == ["image", "class", "probability"]
    assert [row.split() for row in rows] == [
        [path, name, f"{value:.4f}"] for path, classes in found.items() for name, value in classes.items()
    ]


def test_classes_without_names_are_numbers(run, images, tmp_path):
    keras_mixers.create_model("splitmixer_i_256_8", dim=8, blocks=1, num_classes=4).save(tmp_path / "model.keras")
    found = json.loads(run("predict", tmp_path / "model.keras", images[0], "--json", "--top", 9))
    assert sorted(found[str(images[0])]) == ["0", "1", "2", "3"]


def test_refuses_what_it_cannot_read(refused, trained, photos, images, tmp_path):
    model = trained / "model.keras"
    (tmp_path / "cut.png").write_bytes(images[0].read_bytes()[:100])
    assert f"There is no network at '{tmp_path}/no.keras'" in refused("predict", tmp_path / "no.keras", *images)
    assert refused("predict", model, images[0], "no.png") == "There is no image at 'no.png'."
    sentence = refused("predict", model, images[0], tmp_path / "cut.png")
    assert sentence == f"The image '{tmp_path}/cut.png' cannot be read: it is no image, or damaged."
    assert refused("predict", model, photos) == f"The image '{photos}' cannot be read: Is a directory."
    assert refused("predict", images[0], images[1]).startswith(f"'{images[0]}' is no .keras file")


def test_takes_a_network_without_pixels_with_what_is_said_of_them(run, trained, images, tmp_path):
    model = load_trained(trained / "model.keras")
    expected = json.loads(run("predict", trained / "model.keras", *images, "--json"))
    pixels, model.pixels = model.pixels, None
    model.save(tmp_path / "model.keras")
    said = ["--size", pixels.size, "--mean", *pixels.mean, "--std", *pixels.std]
    found = json.loads(run("predict", tmp_path / "model.keras", *images, "--json", *said))
    for path, probabilities in expected.items():
        assert list(found[path].values()) == pytest.approx(list(probabilities.values()), rel=1e-4)


def test_takes_a_network_of_plain_keras(run, images, tmp_path):
    """Its input says the size; the statistics are ImageNet's unless others are given."""
    layers = [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    found = json.loads(run("predict", tmp_path / "model.keras", images[0], "--json", "--size", 16))
    photograph = np.asarray(Image.open(images[0]))
    batch = keras_mixers.get_preset("convmixer_768_32").pixels
    batch = type(batch)(16, batch.mean, batch.std).preprocess([photograph], data_format="channels_last")
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(batch, verbose=0)))[0]
    assert [found[str(images[0])][str(i)] for i in range(2)] == pytest.approx(expected.tolist(), rel=1e-4)
    mean = ["--mean", 0.485, 0.456, 0.406]
    assert json.loads(run("predict", tmp_path / "model.keras", images[0], "--json", *mean)) == found


def test_asks_for_the_size_that_the_network_does_not_say(refused, images, tmp_path):
    keras_mixers.SplitMixerI(8, 1).save(tmp_path / "model.keras")
    sentence = refused("predict", tmp_path / "model.keras", *images, "--mean", 0.5, 0.5, 0.5)
    assert sentence.endswith("takes images of any size; say which with --size.")


def test_refuses_a_network_without_pixels(refused, images, tmp_path):
    keras_mixers.SplitMixerI(8, 1).save(tmp_path / "model.keras")
    sentence = refused("predict", tmp_path / "model.keras", *images)
    assert "does not say which pixels it takes: set model.pixels, as keras_mixers.get_preset(NAME).pixels" in sentence
