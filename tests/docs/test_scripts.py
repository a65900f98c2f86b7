"""`python docs/scripts` knows every script that makes a document."""

import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_independent
SCRIPTS = Path(__file__).parents[2] / "docs" / "scripts"
MAIN = runpy.run_path(str(SCRIPTS / "__main__.py"), run_name="scripts")


def test_lists_every_script_with_what_it_needs():
    listed = subprocess.run([sys.executable, SCRIPTS], capture_output=True, text=True, check=True).stdout
    apart = {"__main__", "excerpts", "publish"}  # a hook of MkDocs; what is given finished runs
    assert {line.partition(":")[0] for line in listed.splitlines()} == {p.stem for p in SCRIPTS.glob("*.py")} - apart
    assert "exports: docs/results/export.csv (needs --data-dir, --networks)" in listed


def test_gives_each_script_what_it_needs_and_names_what_is_missing():
    given = Namespace(data_dir="data", networks=["a.keras", "b.keras"], photographs=None)
    assert MAIN["command"]("exports", given)[2:] == ["--data-dir", "data", "a.keras", "b.keras"]
    assert MAIN["command"]("figures", given)[2:] == ["a.keras"]
    with pytest.raises(ValueError, match="imagenette needs --photographs"):
        MAIN["command"]("imagenette", given)
