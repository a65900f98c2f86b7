"""Recorded runs are what they have to be."""

from pathlib import Path

import pytest

from keras_mixers.training.reproduction import read_results

pytestmark = pytest.mark.any_backend
DOCS = Path(__file__).parents[2] / "docs"


def test_the_smoke_rows_are_above_their_floor_and_took_less_than_15_minutes():
    rows = [row for row in read_results(DOCS / "results" / "cifar10.csv") if row.recipe == "cifar10_smoke"]
    assert {row.backend.split()[0] for row in rows} == {"jax", "tensorflow", "torch"}
    assert all(row.top1 > 60 and row.minutes < 15 and not row.changes for row in rows)
