"""docs/scripts/publish.py: what a finished run leaves."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_images import write_tfds

from keras_mixers.data import load_tfds
from keras_mixers.inference import evaluate_images, load_trained
from keras_mixers.training.reproduction import reproduce, run_folder
from keras_mixers.training.results import read_results
from keras_mixers.weights import read_card

pytestmark = pytest.mark.backend_independent
PUBLISH = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "scripts" / "publish.py"))["publish"]
NAME = "cifar10_splitmixer_iii"
CHANGES = {"epochs": 1, "batch_size": 8, "precision": "float32", "augmentation.rand_augment": None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The row and the folder of a run on 16 drawn images, and where its data are."""
    folder = tmp_path_factory.mktemp("finished")
    write_tfds("cifar10", folder / "tfds", {"train": 16, "test": 9}, 32)
    arguments = {"output_dir": folder, "changes": CHANGES, "data_dir": folder / "tfds", "verbose": 0}
    (result,) = reproduce([NAME], folder / "results.csv", **arguments)
    return result, folder / run_folder(NAME, result.changes, result.backend.split()[0]), folder / "tfds"


@pytest.fixture
def published(finished, tmp_path, monkeypatch):
    """The same, published in a temporary folder."""
    result, run, data_dir = finished
    monkeypatch.setattr("keras_mixers.weights.packaged.FOLDER", tmp_path / "weights")
    folders = {"results": tmp_path, "weights": tmp_path / "weights"}
    return PUBLISH(result, run, "abc1234", data_dir, **folders), folders


def test_a_run_leaves_a_row_a_log_a_curve_and_weights_with_their_card(finished, published, tmp_path):
    (result, run, data_dir), (card, _) = finished, published
    assert read_results(tmp_path / "cifar10.csv") == [result]
    log = tmp_path / "runs" / run.name
    assert sorted(path.name for path in log.iterdir()) == ["curves.png", "history.csv", "metrics.json"]
    assert read_card(tmp_path / "weights" / "splitmixer_iii_256_8.cifar10.safetensors") == card
    assert (card.recipe, card.commit, card.epochs, card.published) == (NAME, "abc1234", 1, 92.52)
    images = load_tfds("cifar10", "test", data_dir)
    for network in (load_trained("splitmixer_iii_256_8:cifar10"), load_trained(run / "model.keras")):
        assert round(100 * evaluate_images(network, images)["top1"], 2) == pytest.approx(card.top1, abs=0.02)


def test_published_again_nothing_is_doubled_and_better_weights_stay(finished, published, tmp_path):
    (result, run, data_dir), (_, folders) = finished, published
    path = tmp_path / "weights" / "splitmixer_iii_256_8.cifar10.safetensors"
    before = path.read_bytes()
    PUBLISH(result, run, "def5678", data_dir, **folders)
    assert path.read_bytes() == before
    assert read_results(tmp_path / "cifar10.csv") == [result]


def test_refuses_a_network_other_than_the_tables(finished, tmp_path, monkeypatch):
    result, run, data_dir = finished
    from keras_mixers.training.recipe import Recipe

    read = Recipe.from_json
    monkeypatch.setattr(Recipe, "from_json", lambda values: replace(read(values), model="splitmixer_i_256_8"))
    with pytest.raises(ValueError, match="shape"):
        PUBLISH(result, run, "abc1234", data_dir, results=tmp_path, weights=tmp_path)
