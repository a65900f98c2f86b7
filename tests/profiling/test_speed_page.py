"""docs/speed.md and the README show what docs/benchmarks/cpu.csv holds."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def ratios():
    """Give (backend, model, mode) -> ratio to plain Keras and to the fastest eager PyTorch, from the CSV."""
    found = {}
    with (DOCS / "benchmarks" / "cpu.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["backend"], row["model"], row["mode"]), {})[row["subject"]] = row
    return {key: (float(rows["keras"]["ours_to_this"]), fastest(rows)) for key, rows in found.items()}


def fastest(rows):
    torch = [row for subject, row in rows.items() if subject.startswith("torch eager")]
    return float(max(torch, key=lambda row: float(row["images_per_second"]))["ours_to_this"])


def test_the_table_is_the_csvs():
    shown = {}
    for line in (DOCS / "speed.md").read_text().splitlines():
        if match := re.fullmatch(r"\| (\w+) \| `(\w+)` \| (\w+) \| ([\d.]+) \| ([\d.]+) \|", line):
            shown[match.group(1, 2, 3)] = tuple(map(float, match.group(4, 5)))
    assert shown == {key: tuple(float(f"{value:.2f}") for value in values) for key, values in ratios().items()}
    assert len(shown) == 3 * 2 * 2


README_SAYS = (
    r"SplitMixer-I-256/8 trains ([\d.]+) times as fast as the same network in plain Keras layers on JAX, "
    r"([\d.]+) times on TensorFlow and ([\d.]+) times on PyTorch, "
    r"and ([\d.]+) to ([\d.]+) times as fast as hand-written PyTorch"
)


def test_the_readmes_ratios_are_the_csvs():
    found = ratios()
    training = [found[backend, "splitmixer_i_256_8", "training"] for backend in ("jax", "tensorflow", "torch")]
    to_keras, to_torch = zip(*training, strict=True)
    shown = re.search(README_SAYS, " ".join((ROOT / "README.md").read_text().split()))
    assert list(shown.groups()) == [f"{value:.1f}" for value in (*to_keras, min(to_torch), max(to_torch))]


def test_no_run_was_disturbed():
    with (DOCS / "benchmarks" / "cpu.csv").open(newline="") as file:
        assert all(float(row["load_of_others"]) < 0.1 * int(row["machine_cores"]) for row in csv.DictReader(file))
