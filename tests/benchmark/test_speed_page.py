"""docs/speed.md and the README show what the CSVs of docs/benchmarks hold."""

import csv
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_independent

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def rows_of(name):
    with (DOCS / "benchmarks" / f"{name}.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def ratios(name="cpu"):
    """Give (backend, model, mode) -> ratio to plain Keras and to the fastest eager PyTorch, from the CSV."""
    found = {}
    for row in rows_of(name):
        found.setdefault((row["backend"], row["model"], row["mode"]), {})[row["subject"]] = row
    return {key: (float(rows["keras"]["ours_to_this"]), fastest(rows)) for key, rows in found.items()}


def fastest(rows):
    torch = [row for subject, row in rows.items() if subject.startswith("torch eager")]
    return float(max(torch, key=lambda row: float(row["images_per_second"]))["ours_to_this"])


def test_the_table_is_the_csvs():
    shown = {}
    for line in (DOCS / "speed.md").read_text().splitlines():
        if match := re.fullmatch(r"\| (\w+) \| `(\w+)` \| (\w+)" + r" \| ([\d.]+)" * 4 + r" \|", line):
            shown[match.group(1, 2, 3)] = match.group(4, 5, 6, 7)
    amd, intel = ratios(), ratios("cpu_intel")
    assert shown == {key: tuple(f"{value:.2f}" for value in (*amd[key], *intel[key])) for key in amd}
    assert len(shown) == 3 * 2 * 2


def test_the_table_of_mlps_is_the_csvs():
    expected = {key: tuple(f"{value:.2f}" for value in both) for key, both in ratios("mlp").items()}
    row = re.compile(r"^\| (\w+) \| `(\w+)` \| (inference|training) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
    assert {line[:3]: line[3:] for line in row.findall((DOCS / "speed.md").read_text())} == expected
    assert len(expected) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("name", "column", "values", "row"),
    [
        ("batch", "batch", ("64", "512"), "| {backend} | {} | {} |"),
        ("precision", "precision", ("bfloat16", "float32"), "| {backend} | `{model}` | {} | {} |"),
    ],
)
def test_the_tables_of_batches_and_precisions_are_the_csvs(name, column, values, row):
    found = {}
    for each in rows_of(name):
        if each["mode"] == "training":
            place = found.setdefault((each["backend"], each["model"]), {})
            place[each[column]] = f"{float(each['images_per_second']):.0f}"
    shown = (DOCS / "speed.md").read_text().splitlines()
    for (backend, model), speeds in found.items():
        assert row.format(*(speeds[value] for value in values), backend=backend, model=model) in shown
    assert {backend for backend, _ in found} == {"jax", "tensorflow", "torch"}


def test_the_accuracy_of_bfloat16_is_the_csvs():
    with (DOCS / "results" / "bfloat16.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    half, full = (
        [float(row["top1"]) for row in rows if f"precision={precision};" in row["changes"]]
        for precision in ("bfloat16", "float32")
    )
    assert len(half) == len(full) == 3
    shown = f"ends at {sum(half) / 3:.1f} % in bfloat16 and at {sum(full) / 3:.1f} % in float32"
    assert shown in (DOCS / "speed.md").read_text()
    assert f"lie up to {max(full) - min(full):.1f} points apart" in (DOCS / "speed.md").read_text()


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
    rows = [row for name in ("cpu", "cpu_intel", "batch", "precision", "mlp") for row in rows_of(name)]
    assert all(float(row["load_of_others"]) < 0.1 * int(row["machine_cores"]) for row in rows)


def test_the_table_of_224_pixels_is_the_csvs():
    speeds = {}
    for row in rows_of("cpu_224"):
        speeds.setdefault(row["backend"], {})[row["model"]] = float(row["images_per_second"])
    expected = {
        (backend, f"{split:.0f}", f"{conv:.0f}", f"{split / conv:.2f}")
        for backend, found in speeds.items()
        for split, conv in [(found["splitmixer_i_256_8_p7_k7"], found["convmixer_256_8_p7_k7"])]
    }
    shown = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", (DOCS / "speed.md").read_text(), re.MULTILINE)
    assert {*shown} == expected
    assert len(shown) == 3


@pytest.mark.parametrize("page", ["docs/speed.md", "keras_mixers/backends/contract.py"])
def test_the_tables_of_depthwise_convolutions_are_the_csvs(page):
    times = {}
    for row in rows_of("depthwise"):
        cell = f"{float(row['inference_ms']):.1f} / {float(row['training_ms']):.0f}"
        times.setdefault((row["backend"], row["implementation"]), {})[row["kernel"]] = cell
    lines = [re.sub(r"[ |,]+", " ", line).strip("# ") for line in (ROOT / page).read_text().splitlines()]
    for (backend, implementation), cells in times.items():
        shown = " ".join([backend, implementation, *(cells[kernel] for kernel in ("1x5", "5x1", "5x5", "7x7"))])
        assert shown in lines
    assert len(times) == 3 * 2


def test_the_choice_of_depthwise_convolutions_is_the_fastest():
    times = {}
    for row in rows_of("depthwise"):
        place = times.setdefault((row["backend"], row["device"], row["kernel"]), {})
        place[row["implementation"]] = float(row["training_ms"]), float(row["inference_ms"])
    for (backend, device, _), found in times.items():
        fastest = getattr(import_module(f"keras_mixers.backends.{backend}"), "FASTEST_DEPTHWISE", {})
        chosen = found[fastest.get(device, "native")]
        assert all(chosen[i] <= other[i] for other in found.values() for i in (0, 1))


def test_time_grows_linearly():
    sys.path.insert(0, str(DOCS / "scripts"))
    plot = pytest.importorskip("benchmark_plots", reason="matplotlib draws the figures")
    fits = [
        plot.linear_fit(
            [read(row) for row in line], [int(row["batch"]) / float(row["images_per_second"]) for row in line]
        )
        for factor, read in plot.FACTORS.items()
        for line in plot.series(rows_of("scaling"), factor).values()
    ]
    assert len(fits) == 6 + 6 + 3
    assert min(fit.r_squared for fit in fits) > 0.95
