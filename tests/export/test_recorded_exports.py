"""What the page on exports says of LiteRT is what its CSV holds, and is what folding promises."""

import csv
import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_backend
DOCS = Path(__file__).parents[2] / "docs"


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "results" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_litert():
    litert = script("litert")
    with (DOCS / "results" / "litert.csv").open(newline="") as file:
        rows = {(row["network"], row["form"], row["threads"]): row for row in csv.DictReader(file)}
    page = (DOCS / "export.md").read_text()
    assert litert.markdown(list(rows.values())) in page
    for network in litert.NETWORKS:
        plain, folded = (rows[network, form, "2"] for form in ("plain", "folded"))
        assert int(folded["norms"]) <= int(plain["norms"]) / 2
        assert float(folded["milliseconds"]) <= float(plain["milliseconds"])
