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

import keras

from keras_mixers.training import fit, get_recipe

RESULTS = Path(__file__).parents[1] / "results" / "recipe_ablation.csv"
PROXY = {
    "model_arguments": {"dim": 128, "blocks": 4, "patch_size": 4},
    "augmentation.rand_augment": None,
    "epochs": 8,
    "precision": "bfloat16",
}
MUON = {"optimizer": "muon"}
BASE = "Muon, all kernels"
# A network of full size, with patches of 4, and longer: enough to learn the training images by heart.
LARGE = {
    **MUON,
    "model_arguments": {"patch_size": 4},
    "epochs": 16,
    "batch_size": 256,
    "whitening": True,
    "augmentation.translate": 2,
    "augmentation.flip": "alternating",
}
LARGE_BASE = "256/8, 16 epochs"
# The recipe on a sixth of the network and a fifth of the images: in minutes, and training images lead by 12 points.
FEW = {
    **LARGE,
    "model_arguments": PROXY["model_arguments"],
    "epochs": 30,
    "limit_train": 10_000,
    "precision": "float32",
}
FEW_BASE = "10,000 images, 30 epochs"
# What keeps a network from learning images by heart.
AGAINST_OVERFITTING = {
    "RandAugment (1, 6)": {"rand_augment": (1, 6)},
    "RandAugment (1, 12)": {"rand_augment": (1, 12)},
    "RandAugment (2, 12)": {"rand_augment": (2, 12)},
    "random erasing": {"random_erasing": 0.25},
    "MixUp": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0, "mix_probability": 0.5},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}
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
    **{
        name: {**base, **{f"augmentation.{field}": value for field, value in fields.items()}}
        for start, base in ((LARGE_BASE, LARGE), (FEW_BASE, FEW))
        for name, fields in {start: {}, **{f"{start}, {name}": f for name, f in AGAINST_OVERFITTING.items()}}.items()
    },
}
COLUMNS = ("ingredient", "seed", "top1", "train_accuracy", "minutes", "changes")


def _joined(name: str, changes: str) -> str:
    """Returns the name of the run that an ingredient joins; "" for a run that others join."""
    if not changes or name in (LARGE_BASE, FEW_BASE):
        return ""
    for base in (LARGE_BASE, FEW_BASE):
        if name.startswith(base):
            return base
    return BASE if changes.startswith("optimizer=muon;") else "AdamW"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the means over seeds as a table in Markdown, with what each ingredient adds to the run it joins."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["ingredient"], []).append(float(row["top1"]))
    means = {name: sum(top1s) / len(top1s) for name, top1s in found.items()}
    changes = {row["ingredient"]: row["changes"] for row in rows}
    lines = ["| ingredient | top-1 (%) | by seed | joins | points |", "| --- | ---: | --- | --- | ---: |"]
    for name, top1s in found.items():
        joined = _joined(name, changes[name])
        gain = f"{means[name] - means[joined]:+.2f}" if joined else ""
        lines.append(f"| {name} | {means[name]:.2f} | {', '.join(f'{t:.2f}' for t in top1s)} | {joined} | {gain} |")
    return "\n".join(lines)


def main() -> None:
    """Carries out the runs whose rows are missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--only", nargs="*", choices=INGREDIENTS, default=[*INGREDIENTS])
    arguments = parser.parse_args()
    if not arguments.results.exists():
        arguments.results.write_text(",".join(COLUMNS) + "\n")
    for name in arguments.only:
        for seed in arguments.seeds:
            with arguments.results.open(newline="") as file:
                if any((row["ingredient"], row["seed"]) == (name, str(seed)) for row in csv.DictReader(file)):
                    continue
            changes = {**PROXY, **INGREDIENTS[name], "seed": seed}
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as directory:
                run = fit(
                    get_recipe("cifar10_splitmixer_i").change(changes),
                    output_dir=directory,
                    data_dir=arguments.data_dir,
                    verbose=0,
                )
            row = {
                "ingredient": name,
                "seed": seed,
                "top1": round(100 * run.metrics["top1"], 2),
                "train_accuracy": round(100 * run.history[-1]["accuracy"], 2),
                "minutes": round((time.perf_counter() - start) / 60, 1),
                "changes": ";".join(f"{field}={value}" for field, value in INGREDIENTS[name].items()),
            }
            with arguments.results.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)
            print(row, flush=True)
            keras.backend.clear_session()
    with arguments.results.open(newline="") as file:
        print(table([*csv.DictReader(file)]))


if __name__ == "__main__":
    main()
