"""The newcomer's first minute."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_mixers  # noqa: F401  (registers what the files hold)

pytestmark = pytest.mark.backend_independent

ROOT = Path(__file__).parents[2]


def test_reads_digits(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits.py"), "--output-dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    accuracy = float(re.search(r"Test accuracy ([\d.]+)", result.stdout).group(1))
    assert accuracy >= 0.97
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 10)
