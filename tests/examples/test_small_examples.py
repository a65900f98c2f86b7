"""Examples that take a minute: digits, export, segmentation and the input pipeline."""

import re
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixers  # noqa: F401  (registers what the files hold)

pytestmark = pytest.mark.backend_independent


def test_digits(run_example, tmp_path):
    """The newcomer's first minute."""
    result = run_example("digits", "--output-dir", tmp_path)
    assert float(re.search(r"Test accuracy ([\d.]+)", result.stdout).group(1)) >= 0.97
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 10)


def test_export_gives_three_runtimes_that_read_the_same_digit(run_example, tmp_path):
    result = run_example("export", "--output-dir", tmp_path)
    digits = re.findall(r"^(\w.*): an? (\d), logits", result.stdout, re.MULTILINE)
    assert len(digits) == 3
    assert len({digit for _, digit in digits}) == 1
    accuracies = re.findall(r"right for ([\d.]+) % \(the network: ([\d.]+) %\)", result.stdout)
    assert len(accuracies) == 2
    assert all(float(exported) > 90 and exported == own for exported, own in accuracies)


def test_segmentation_finds_shapes(run_example, tmp_path):
    result = run_example("segmentation", "--output-dir", tmp_path, "--epochs", 5, "--train-images", 800)
    accuracy, iou = map(float, re.search(r"Pixel accuracy ([\d.]+), mean IoU ([\d.]+)", result.stdout).groups())
    # Calling everything background is right for four pixels of five, and gives a mean IoU of a fifth.
    assert accuracy > 0.85
    assert iou > 0.45
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")


def test_input_pipeline_measures_every_recipe(run_example, data_dir, tmp_path, rng):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (250, 300, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.jpg")
    small = ["--batch-size", 4, "--seconds", 0.1]
    done = run_example("input_pipeline", "--data-dir", data_dir, "--folder", tmp_path, *small)
    speeds = dict(re.findall(r"^(.*): ([\d,]+) images/s", done.stdout, re.MULTILINE))
    recipes = ["SplitMixer CIFAR", "ConvMixer CIFAR, 100 epochs", "RandAugment, MixUp, CutMix"]
    recipes += ["SplitMixer Food101", "ConvMixer ImageNet"]
    recipes += ["the same by KerasCV"] if find_spec("keras_cv") else []
    assert set(speeds) == {*recipes, "SplitMixer CIFAR, in training"}
    assert all(int(speed.replace(",", "")) > 0 for speed in speeds.values())
    share = float(re.search(r"of which ([\d.]+)% of the time for images", done.stdout).group(1))
    assert 0 <= share < 100
