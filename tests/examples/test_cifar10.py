"""The example's whole path on a few real CIFAR-10 images, laid out as the TFDS data set."""

import csv
import json
import math

import keras
import numpy as np
import pytest

import keras_mixers  # noqa: F401  (registers what the files hold)

pytestmark = pytest.mark.backend_independent


@pytest.fixture
def run(run_example, tmp_path):
    """Train a small network, given flags as one string."""

    def run(flags="", *, data_dir, output_dir=tmp_path, **options):
        small = "--dim 32 --blocks 2 --patch-size 4 --seed 7".split()
        folders = ["--data-dir", data_dir, "--output-dir", output_dir]
        return run_example("cifar10", *folders, *small, *flags.split(), **options)

    return run


def history(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_leaves_a_model_a_history_and_metrics(run, data_dir, tmp_path):
    run("--epochs 6 --batch-size 64 --learning-rate 0.02 --augmentation flip --tensorboard", data_dir=data_dir)
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["loss"]) < 0.85 * float(rows[0]["loss"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["machine"]["backend"].startswith(keras.backend.backend())
    assert metrics["recipe"]["seed"] == 7
    assert metrics["recipe"]["learning_rate"] == 0.02
    assert metrics["recipe"]["precision"] == "float32"
    assert metrics["top1"] == pytest.approx(float(rows[-1]["val_accuracy"]), abs=1e-6)
    assert any((tmp_path / "tensorboard").rglob("*tfevents*"))
    model = keras.models.load_model(tmp_path / "model.keras")
    assert metrics["params"] == sum(math.prod(weight.shape) for weight in model.trainable_weights)

    from keras_mixers.data import eval_batches, load_tfds
    from keras_mixers.models import ImageSpec

    spec = ImageSpec(32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    test = eval_batches(load_tfds("cifar10", "test", data_dir), 64, spec)
    assert model.evaluate(test, verbose=0)[1] == pytest.approx(metrics["top1"], abs=1e-6)


def test_resumes_a_run(run, data_dir, tmp_path):
    flags = "--epochs 2 --batch-size 256 --augmentation none --quiet"
    first = run(flags, data_dir=data_dir)
    (tmp_path / "model.keras").unlink()
    for path in (tmp_path / "checkpoints").glob("epoch_0002*"):
        path.unlink()
    resumed = run(f"{flags} --resume", data_dir=data_dir)
    assert resumed.stdout == first.stdout
    assert (tmp_path / "model.keras").is_file()


def test_learns_with_randaugment_mixup_and_cutmix(run, data_dir, tmp_path):
    augmentation = "--augmentation randaugment --mixup 0.5 --cutmix 0.5"
    run(f"--model ConvMixer --epochs 5 --batch-size 64 --learning-rate 0.02 {augmentation}", data_dir=data_dir)
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_learns_with_kerascvs_randaugment_mixup_and_cutmix(run, data_dir, tmp_path):
    pytest.importorskip("keras_cv", reason="KerasCV is not installed")
    run("--epochs 5 --batch-size 64 --learning-rate 0.02 --augmentation keras_cv", data_dir=data_dir)
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert losses[-1] < losses[0]
    assert "keras_cv.CutMix()" in json.loads((tmp_path / "recipe.json").read_text())["augmentation"]["layers"]


def test_names_three_ways_where_the_data_set_cannot_be_fetched(run, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    missing = {"data_dir": tmp_path / "data", "output_dir": tmp_path / "out", "succeeds": False}
    result = run(**missing)
    assert result.returncode == 1
    assert result.stderr.count("\n") <= 1 or keras.backend.backend() == "tensorflow"  # which tells of itself
    for way in ("connect to the internet", "--data-dir", "examples/digits.py"):
        assert way in result.stderr
    assert not (tmp_path / "out").exists()
    result = run("--no-download", **missing)
    assert f"'cifar10' is not in '{tmp_path}/data', and downloads are switched off" in result.stderr
