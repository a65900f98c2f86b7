"""The example of an export, on every backend."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_independent
ROOT = Path(__file__).parents[2]


def test_three_runtimes_read_the_same_digit(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "export.py"), "--output-dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    digits = re.findall(r"^(\w.*): an? (\d), logits", result.stdout, re.MULTILINE)
    assert len(digits) == 3
    assert len({digit for _, digit in digits}) == 1
    accuracies = re.findall(r"right for ([\d.]+) % \(the network: ([\d.]+) %\)", result.stdout)
    assert len(accuracies) == 2
    assert all(float(exported) > 90 and exported == own for exported, own in accuracies)
