"""The example of a dense head finds shapes, on every backend."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.backend_independent
ROOT = Path(__file__).parents[2]


def test_finds_shapes(tmp_path):
    flags = ["--output-dir", str(tmp_path), "--epochs", "5", "--train-images", "800"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "segmentation.py"), *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    accuracy, iou = map(float, re.search(r"Pixel accuracy ([\d.]+), mean IoU ([\d.]+)", result.stdout).groups())
    # To take all for background is right for four pixels of five, and gives a mean IoU of a fifth.
    assert accuracy > 0.85
    assert iou > 0.45
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
