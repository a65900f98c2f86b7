"""The example reads every recipe's images and says how fast, and how long training waits."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.backend_independent

ROOT = Path(__file__).parents[2]


def test_measures_every_recipe(data_dir, tmp_path, rng):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (250, 300, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.jpg")
    command = [sys.executable, str(ROOT / "examples" / "input_pipeline.py"), "--data-dir", str(data_dir)]
    command += ["--folder", str(tmp_path), "--batch-size", "4", "--seconds", "0.1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    speeds = dict(re.findall(r"^(.*): ([\d,]+) images/s", done.stdout, re.MULTILINE))
    recipes = ["SplitMixer CIFAR", "ConvMixer CIFAR, 100 epochs", "RandAugment, MixUp, CutMix"]
    recipes += ["SplitMixer Food101", "ConvMixer ImageNet"]
    if find_spec("keras_cv"):
        recipes.append("the same by KerasCV")
    assert set(speeds) == {*recipes, "SplitMixer CIFAR, in training"}
    assert all(int(speed.replace(",", "")) > 0 for speed in speeds.values())
    share = float(re.search(r"of which ([\d.]+)% of the time for images", done.stdout).group(1))
    assert 0 <= share < 100
