"""docs/speed.md shows what docs/benchmarks/cpu.csv holds."""

import csv
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


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


def test_no_run_was_disturbed():
    with (DOCS / "benchmarks" / "cpu.csv").open(newline="") as file:
        assert all(float(row["load_of_others"]) < 0.1 * int(row["machine_cores"]) for row in csv.DictReader(file))
