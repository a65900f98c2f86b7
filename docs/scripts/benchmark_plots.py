"""Draws what the CSVs of docs/benchmarks hold, as PNGs beside them: cpu.csv as bars, scaling.csv as straight lines.

    python docs/scripts/benchmark_plots.py

A CSV that is not there is left out.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_mixers.benchmark.peers import Sizes, sizes_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
Row = dict[str, str]

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
BACKENDS = {"jax": BLUE, "tensorflow": ORANGE, "torch": GREEN}
SUBJECTS = {"ours": BLUE, "plain Keras": ORANGE, "eager PyTorch, the faster layout": GREEN}
MODELS = ("splitmixer_i_256_8", "convmixer_256_8_p2_k5")
# What the time of a batch should be proportional to, and how it reads from a row.
FACTORS = {
    "images in a batch": lambda row: int(row["batch"]),
    "pixels in an image": lambda row: int(row["image_size"]) ** 2,
    "blocks": lambda row: sizes_of(row["model"]).blocks,
}


class LinearFit(NamedTuple):
    """The straight line of least squares, and the part of the variance that it explains."""

    slope: float
    intercept: float
    r_squared: float


def linear_fit(xs: Sequence[float], ys: Sequence[float]) -> LinearFit:
    """Fits a straight line."""
    xs, ys = np.asarray(xs, float), np.asarray(ys, float)
    slope, intercept = np.polyfit(xs, ys, 1)
    residuals = ys - (slope * xs + intercept)
    return LinearFit(float(slope), float(intercept), 1 - float(residuals.var() / ys.var()))


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a CSV of the benchmark."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_subjects(rows: Sequence[Row]) -> Figure:
    """Draws images per second of ours, plain Keras and eager PyTorch, with quartiles: a panel a backend and mode."""
    rows = [row for row in rows if row["model"] in MODELS]
    ((batch, size, precision),) = {(row["batch"], row["image_size"], row["precision"]) for row in rows}
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    backends = [backend for backend in BACKENDS if any(row["backend"] == backend for row in rows)]
    figure = Figure(figsize=(4 * len(backends), 1 + 3.2 * len(modes)), layout="constrained")
    panels = figure.subplots(len(modes), len(backends), squeeze=False, sharey="row")
    for i, mode in enumerate(modes):
        for j, backend in enumerate(backends):
            draw_bars(panels[i, j], [row for row in rows if (row["mode"], row["backend"]) == (mode, backend)])
            panels[i, j].set_title(f"{mode}, Keras on {backend}")
        panels[i, 0].set_ylabel("images/s")
    figure.suptitle(
        f"Images per second, median and quartiles: batches of {batch}, {size} × {size} pixels, {precision}\n"
        f"on {machine(rows)}"
    )
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SUBJECTS))
    return figure


def draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws a bar for each subject, those of a model side by side."""
    for i, (subject, color) in enumerate(SUBJECTS.items()):
        chosen = [choose(subject, [row for row in rows if row["model"] == model]) for model in MODELS]
        low, median, high = (
            np.array([float(row[column]) for row in chosen]) for column in ("low", "images_per_second", "high")
        )
        bars = axes.bar(
            np.arange(len(MODELS)) + 0.27 * (i - 1),
            median,
            width=0.25,
            yerr=(median - low, high - median),
            color=color,
            label=subject,
            capsize=3,
        )
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize="small")
    axes.set_xticks(range(len(MODELS)), MODELS)
    axes.margins(y=0.1)
    axes.spines[["top", "right"]].set_visible(False)


def choose(subject: str, rows: Sequence[Row]) -> Row:
    """Returns the latest row of a subject; of PyTorch's two layouts, that of the faster."""
    name = {"ours": "ours", "plain Keras": "keras"}.get(subject, "torch eager")
    rows = {row["subject"]: row for row in rows}.values()
    return max(
        (row for row in rows if row["subject"].startswith(name)), key=lambda row: float(row["images_per_second"])
    )


def draw_scaling(rows: Sequence[Row]) -> Figure:
    """Draws seconds per batch of ours in inference against each factor, with the straight lines through them."""
    rows = [row for row in rows if (row["subject"], row["mode"]) == ("ours", "inference")]
    (precision,) = {row["precision"] for row in rows}
    figure = Figure(figsize=(16, 6.4), layout="constrained")
    for axes, factor in zip(figure.subplots(1, len(FACTORS)), FACTORS, strict=True):
        draw_lines(axes, factor, rows)
    figure.suptitle(
        f"Seconds per batch in inference, medians and straight lines of least squares: {precision}\non {machine(rows)}"
    )
    return figure


def draw_lines(axes: Axes, factor: str, rows: Sequence[Row]) -> None:
    """Draws seconds per batch against a factor, markers and a line for each backend and network."""
    lines = series(rows, factor)
    networks = list(dict.fromkeys(network for _, network, *_ in lines))
    for (backend, network, *_), line in lines.items():
        xs = [FACTORS[factor](row) for row in line]
        ys = [int(row["batch"]) / float(row["images_per_second"]) for row in line]
        fit = linear_fit(xs, ys)
        first = network == networks[0]
        axes.plot(
            xs,
            ys,
            marker="o" if first else "s",
            markerfacecolor=BACKENDS[backend] if first else "white",
            linestyle="none",
            color=BACKENDS[backend],
            label=f"{backend}, {name_of(network)}: R² = {fit.r_squared:.4f}",
        )
        ends = np.array([min(xs), max(xs)])
        axes.plot(ends, fit.slope * ends + fit.intercept, "-" if first else "--", color=BACKENDS[backend])
    measured = [row for line in lines.values() for row in line]
    fixed = [f"{values(name, measured)} {name}" for name in FACTORS if name != factor]
    axes.set(title=f"against {factor}\n({', '.join(fixed)})", xlabel=factor, ylabel="seconds per batch")
    axes.set_xticks(sorted({FACTORS[factor](row) for row in measured}))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def series(rows: Sequence[Row], factor: str) -> dict[tuple, list[Row]]:
    """Groups rows that differ in `factor` alone, where there are three values of it or more."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        others = [value(row) for name, value in FACTORS.items() if name != factor]
        network = replace(sizes_of(row["model"]), blocks=0)
        groups.setdefault((row["backend"], network, *others), []).append(row)
    return {key: group for key, group in groups.items() if len({FACTORS[factor](row) for row in group}) >= 3}


def values(factor: str, rows: Sequence[Row]) -> str:
    """Returns the values that a factor has in some rows."""
    return " or ".join(f"{value:,}" for value in sorted({FACTORS[factor](row) for row in rows}))


def machine(rows: Sequence[Row]) -> str:
    """Returns what the rows were measured on."""
    return " and ".join(dict.fromkeys(f"{row['machine_cpu']}, {row['machine_cores']} cores" for row in rows))


def name_of(network: Sizes) -> str:
    """Returns what a legend calls a network of any number of blocks."""
    kind = "ConvMixer" if network.ratio is None else "SplitMixer-I"
    return f"{kind}-{network.dim}, kernel {network.kernel_size}, patch {network.patch_size}"


FIGURES = {"cpu": draw_subjects, "scaling": draw_scaling}


def main() -> None:
    """Draws the figures of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=BENCHMARKS, help="(default: the script's)")
    folder = parser.parse_args().folder
    for name, draw in FIGURES.items():
        path = folder / f"{name}.csv"
        if path.exists():
            draw(read_rows(path)).savefig(path.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
