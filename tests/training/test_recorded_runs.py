"""Recorded runs are what they have to be."""

import csv
import runpy
from pathlib import Path

import pytest

from keras_mixers import create_model
from keras_mixers.profiling import profile
from keras_mixers.training import get_recipe
from keras_mixers.training.results import read_results

pytestmark = pytest.mark.backend_independent
DOCS = Path(__file__).parents[2] / "docs"


def test_the_smoke_rows_are_above_their_floor_and_took_less_than_15_minutes():
    rows = [row for row in read_results(DOCS / "results" / "cifar10.csv") if row.recipe == "cifar10_smoke"]
    assert {row.backend.split()[0] for row in rows} == {"jax", "tensorflow", "torch"}
    assert all(row.top1 > 60 and row.minutes < 15 and not row.changes for row in rows)


def test_training_page_has_the_runs_on_photographs():
    page = (DOCS / "training.md").read_text()
    rows = _rows("imagenette")
    assert [row["run"] for row in rows] == [
        "ten_classes", "first_five_classes", "other_five_from_scratch", "other_five_fine_tuned"
    ]  # fmt: skip
    for row in rows:
        assert f"| `{row['run']}` | {row['epochs']} | {row['top1']} | {row['minutes']} |" in page


def test_training_page_has_the_table_of_the_short_recipes_ingredients():
    table = runpy.run_path(str(DOCS / "scripts" / "recipe_ablation.py"))["table"]
    rows = _rows("recipe_ablation")
    assert all(
        sorted(other["seed"] for other in rows if other["ingredient"] == row["ingredient"]) == ["1", "2"]
        for row in rows
    )
    page = (DOCS / "training.md").read_text()
    assert table(rows) in page
    assert table(_rows("recipe_rates")) in page


def test_training_page_has_the_variants_in_eight_epochs():
    rows = [row for row in read_results(DOCS / "results" / "cifar10.csv") if row.epochs == 8 and "_fast" in row.recipe]
    shown = {}
    for line in (DOCS / "training.md").read_text().splitlines():
        if line.startswith(("| SplitMixer-", "| StrideMixer-")):
            variant, parameters, macs, top1, _ = (cell.strip() for cell in line.strip("|").split("|"))
            shown[variant.lower().translate(str.maketrans("-/", "__"))] = parameters, macs, top1
    expected = {}
    for row in rows:
        macs = profile(create_model(row.model), input_shape=(32, 32, 3)).macs
        expected[row.model] = f"{row.parameters:,}", f"{macs / 1e6:.1f}", f"{row.top1:.2f}"
    assert shown == expected
    assert len(rows) == len(expected) == 6


def test_the_ablation_runs_the_short_recipe_itself_on_its_proxy():
    script = runpy.run_path(str(DOCS / "scripts" / "recipe_ablation.py"))
    fast = get_recipe("cifar10_splitmixer_i_fast")
    changes = {"model_arguments": script["PROXY"]["model_arguments"], "precision": "float32", "seed": 1}
    recorded = script["recipe_of"](script["RECIPE"], seed=1)
    assert recorded.change({"published": None, "source": ""}) == fast.change(changes)


def _rows(name):
    with (DOCS / "results" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_shows_the_recorded_comparison_of_the_family():
    rows = _rows("comparison")
    assert len(rows) == 6
    page = (DOCS / "reproduction.md").read_text()
    for row in rows:
        seeds = [float(top1) for top1 in row["top1_by_seed"].split()]
        assert abs(sum(seeds) / 3 - float(row["top1"])) < 0.006
        costs = f"{float(row['latency_ms']):.2f} | {float(row['images_per_second']):,.0f} | {row['minutes']}"
        accuracies = f"{float(row['top1']):.2f} | {' '.join(f'{top1:.2f}' for top1 in seeds)}"
        sizes = f"{int(row['params']):,} | {int(row['macs']):,}"
        assert f"| `{row['model']}` | {row['family']} | {sizes} | {accuracies} | {costs} |" in page
        costs_now = profile(create_model(row["model"]), (32, 32, 3))
        assert (costs_now.params, costs_now.macs) == (int(row["params"]), int(row["macs"]))
