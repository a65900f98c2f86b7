"""`reproduce` runs recipes, keeps a row of each, and does not run again what is there."""

import csv
import shutil
from pathlib import Path

import keras
import pytest
from drawn_images import write_tfds

from keras_mixers.training.reproduction import recipes_of
from keras_mixers.training.results import read_results

pytestmark = pytest.mark.backend_independent

BACKEND = keras.backend.backend()
SETTING = ["--epochs", "1", "--batch-size", "8", "--set", "model_arguments.dim=8", "model_arguments.blocks=1"]
SETTING += ["limit_train=16", "limit_test=8"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    write_tfds("cifar10", directory, {"train": 20, "test": 10}, 32)
    return directory


def test_keeps_a_row_of_each_run_and_skips_what_is_there(run, data_dir, tmp_path):
    arguments = ["reproduce", "cifar10_smoke", "--data-dir", data_dir, "--results", tmp_path / "results.csv"]
    arguments += ["--output-dir", tmp_path / "runs", "--quiet", *SETTING]
    table = run(*arguments)
    (result,) = read_results(tmp_path / "results.csv")
    assert (result.recipe, result.epochs, result.seed, result.published) == ("cifar10_smoke", 1, 42, None)
    assert result.changes.startswith("epochs=1;batch_size=8;model_arguments.dim=8;")
    assert result.backend.startswith(BACKEND)
    command = f"KERAS_BACKEND={BACKEND} python -m keras_mixers reproduce cifar10_smoke --set epochs=1 "
    assert result.command.startswith(command)
    assert 0 <= result.top1 <= 100
    assert f"| {result.parameters:,} | 1 | {result.top1:.2f} |" in table
    shutil.rmtree(tmp_path / "runs")
    assert run(*arguments) == table == run("reproduce", "--table", "--results", tmp_path / "results.csv")
    assert not (tmp_path / "runs").exists()


def test_a_data_set_stands_for_its_published_runs():
    names = recipes_of(["cifar10"])
    assert len(names) == 12
    assert "cifar10_convmixer_25_epochs" in names
    assert "cifar10_smoke" not in names


def test_refuses_before_anything_is_trained(refused, tmp_path):
    assert "'cifar10_splitmixer_6'; did you mean" in refused("reproduce", "cifar10_smoke", "cifar10_splitmixer_6")
    assert "Give the name of a data set, such as cifar10" in refused("reproduce")
    assert "There are no results in 'no.csv'" in refused("reproduce", "--table", "--results", "no.csv")
    somewhere = str(tmp_path / "no" / "results.csv")
    assert "results must be a file in a folder that exists" in refused("reproduce", "food101", "--results", somewhere)
    path = tmp_path / "other.csv"
    with path.open("w") as file:
        csv.writer(file).writerow(["model", "images_per_second"])
    assert "holds no results: its columns are" in refused("reproduce", "--table", "--results", path)


def test_names_a_row_that_was_cut_short(refused, tmp_path):
    path = tmp_path / "results.csv"
    recorded = (Path(__file__).parents[2] / "docs" / "results" / "cifar10.csv").read_text().splitlines()
    path.write_text("\n".join([*recorded[:2], recorded[2][:30]]) + "\n")
    sentence = refused("reproduce", "--table", "--results", path)
    assert "has a row that is damaged or cut short: {'recipe': 'cifar10_smoke'" in sentence


def test_the_readme_has_the_recorded_results(run):
    root = Path(__file__).parents[2]
    table = run("reproduce", "--table", "--results", root / "docs" / "results" / "cifar10.csv")
    assert table in (root / "README.md").read_text()
