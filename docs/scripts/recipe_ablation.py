"""Measures what each ingredient of a short CIFAR-10 recipe is worth, on a small network; keeps a row of each run.

    KERAS_BACKEND=tensorflow python docs/scripts/recipe_ablation.py --data-dir FOLDER

A run that has its row is skipped. Two seeds side by side, with one thread each, take the least time on two cores:
`TF_NUM_INTRAOP_THREADS=1 ... --seeds 1 & ... --seeds 2`.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mixers.training import Recipe, fit, get_recipe

RESULTS = Path(__file__).parents[1] / "results"
PROXY = {
    "model_arguments": {"dim": 128, "blocks": 4, "patch_size": 4},
    "augmentation.rand_augment": None,
    "epochs": 8,
    "precision": "bfloat16",
}
MUON = {"optimizer": "muon"}
BASE = "Muon, all kernels"
# The whole recipe, and that on a fifth of the images, of which the network learns more by heart.
RECIPE = {
    **MUON,
    "epochs": 30,
    "batch_size": 256,
    "whitening": True,
    "augmentation.translate": 2,
    "augmentation.flip": "alternating",
    "augmentation.rand_augment": (1, 12),
    "precision": "float32",
}
RECIPE_BASE = "whole recipe, 30 epochs"
FEW_BASE = "10,000 images, 30 epochs"
FEW = {**RECIPE, "augmentation.rand_augment": None, "limit_train": 10_000}
# By name: what differs from the proxy.
INGREDIENTS = {
    "AdamW": {},
    BASE: MUON,
    "alternating flip": {**MUON, "augmentation.flip": "alternating"},
    "translation by 2": {**MUON, "augmentation.translate": 2},
    "rate 0.1": {**MUON, "learning_rate": 0.1},
    "initial weights of Keras": {**MUON, "model_arguments": {**PROXY["model_arguments"], "initializer": "keras"}},
    "EMA 0.99": {**MUON, "ema": 0.99},
    "whitening": {**MUON, "whitening": True},
    "label smoothing 0.1": {**MUON, "augmentation.label_smoothing": 0.1},
    "rate 0.02": {**MUON, "learning_rate": 0.02},
    "RandAugment (1, 6)": {**MUON, "augmentation.rand_augment": (1, 6)},
    "cosine": {**MUON, "schedule": "cosine"},
    "batch 256": {**MUON, "batch_size": 256},
    "weight decay 0.02": {**MUON, "weight_decay": 0.02},
    "AdamW, rate 0.02": {"learning_rate": 0.02},
    "batch 128": {**MUON, "batch_size": 128},
    "batch 256 and whitening": {**MUON, "batch_size": 256, "whitening": True},
    FEW_BASE: FEW,
    f"{FEW_BASE}, RandAugment (2, 12)": {**FEW, "augmentation.rand_augment": (2, 12)},
}
# By the name of its file in docs/results: the runs of a table.
TABLES = {
    "recipe_ablation": INGREDIENTS,
    "recipe_rates": {
        RECIPE_BASE: RECIPE,
        **{f"{RECIPE_BASE}, rate {rate}": {**RECIPE, "learning_rate": rate} for rate in (0.02, 0.01)},
    },
}
COLUMNS = ("ingredient", "seed", "top1", "train_accuracy", "minutes", "changes")


def _joined(name: str, changes: str) -> str:
    """Returns the name of the run that an ingredient joins; "" for a run that others join."""
    for base in (FEW_BASE, RECIPE_BASE):
        if name.startswith(base):
            return "" if name == base else base
    if not changes:
        return ""
    return BASE if changes.startswith("optimizer=muon;") else "AdamW"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns means over seeds as a table in Markdown; points are over the same seeds of the run that is joined."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["ingredient"], {})[row["seed"]] = float(row["top1"])
    changes = {row["ingredient"]: row["changes"] for row in rows}
    lines = ["| ingredient | top-1 (%) | by seed | joins | points |", "| --- | ---: | --- | --- | ---: |"]
    for name, top1s in found.items():
        mean = sum(top1s.values()) / len(top1s)
        joined = _joined(name, changes[name])
        gain = f"{mean - sum(found[joined][seed] for seed in top1s) / len(top1s):+.2f}" if joined else ""
        by_seed = ", ".join(f"{top1:.2f}" for top1 in top1s.values())
        lines.append(f"| {name} | {mean:.2f} | {by_seed} | {joined} | {gain} |")
    return "\n".join(lines)


def main() -> None:
    """Carries out the runs whose rows are missing, and prints the tables."""
    names = [name for runs in TABLES.values() for name in runs]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    for file_name, runs in TABLES.items():
        path = arguments.results / f"{file_name}.csv"
        for name in (name for name in runs if name in arguments.only):
            for seed in arguments.seeds:
                if not any((row["ingredient"], row["seed"]) == (name, str(seed)) for row in _rows(path)):
                    _append(path, _run(name, runs[name], seed, arguments.data_dir))
        print(table(_rows(path)))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def _append(path: Path, row: Mapping[str, str | float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def _run(name: str, fields: Mapping[str, Any], seed: int, data_dir: str | None) -> dict[str, str | float]:
    """Trains the proxy with an ingredient, and returns the row of it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        run = fit(recipe_of(fields, seed), output_dir=directory, data_dir=data_dir, verbose=0)
    keras.backend.clear_session()
    return {
        "ingredient": name,
        "seed": seed,
        "top1": round(100 * run.metrics["top1"], 2),
        "train_accuracy": round(100 * run.history[-1]["accuracy"], 2),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "changes": ";".join(f"{field}={value}" for field, value in fields.items()),
    }


def recipe_of(fields: Mapping[str, Any], seed: int) -> Recipe:
    """Returns the proxy's recipe with the fields of an ingredient."""
    return get_recipe("cifar10_splitmixer_i").change({**PROXY, **fields, "seed": seed})


if __name__ == "__main__":
    main()
