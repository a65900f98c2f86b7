"""What networks reach against what they cost, and what the papers' mixers save."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mixers import layers
from keras_mixers.layers.validation import check_choice, check_positive_int
from keras_mixers.models import create_model, get_preset
from keras_mixers.models.datasets import DATASETS
from keras_mixers.models.presets import PRESETS
from keras_mixers.profiling import Profile, profile, without_values
from keras_mixers.training.results import read_results
from keras_mixers.visualize import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"params": "trainable parameters", "macs": "multiply-accumulates for one image"}
MEASURED_COSTS = {**COSTS, "latency_ms": "milliseconds for one image"}
# Colour and marker of each family, and of all others.
FAMILIES = {
    "ConvMixer": (style.BLACK, "o"),
    "SplitMixer-I": (style.BLUE, "s"),
    "SplitMixer-II": (style.ORANGE, "^"),
    "SplitMixer-III": (style.GREEN, "v"),
    "SplitMixer-IV": (style.VERMILION, "D"),
    "SplitMixer-V": (style.PURPLE, "P"),
    "3D convolution": (style.SKY, "X"),
    "MLP-Mixer": (style.BLUE, "H"),
    "ResMLP": (style.VERMILION, "h"),
    "gMLP": (style.PURPLE, "d"),
}
OTHERS = (style.YELLOW, "*")


@dataclass(frozen=True)
class Point:
    """A network that was trained on a data set, by this project or in a paper."""

    model: str
    family: str
    cost: int
    top1: float  # in percent
    ours: bool = False


def accuracy_points(dataset: str = "cifar10", cost: str = "params", results: str | Path | None = None) -> list[Point]:
    """Returns the points that `accuracy_against_cost` draws.

    Example:
        >>> points = accuracy_points("food101", "macs")
        >>> [(point.family, point.top1) for point in points][:2]
        [('ConvMixer', 74.59), ('SplitMixer-I', 73.56)]
    """
    check_choice("dataset", dataset, tuple(DATASETS))
    check_choice("cost", cost, tuple(COSTS))
    points = [
        _point(name, dataset, cost, published.top1)
        for name, preset in PRESETS.items()
        for published in preset.published
        if published.dataset == dataset
    ]
    if results is not None and not Path(results).exists():
        raise FileNotFoundError(f"There are no results in {str(results)!r}; reproduce writes them there.")
    best = {}
    for row in read_results(results) if results is not None else ():
        of_dataset = row.recipe.startswith(f"{dataset}_") and not re.search(r"(^|;)(dataset|model|pixels)", row.changes)
        # A recipe made smaller trains another network than its name says; the number of parameters tells.
        if of_dataset and row.parameters == _profile(row.model, DATASETS[dataset].num_classes).params:
            best[row.model] = max(row.top1, best.get(row.model, 0.0))
    points += [_point(model, dataset, cost, top1, ours=True) for model, top1 in best.items()]
    return points


def accuracy_against_cost(
    dataset: str = "cifar10", cost: str = "params", results: str | Path | None = None, save: str | Path | None = None
) -> "Figure":
    """Draws accuracy against parameters or multiply-accumulates (SplitMixer Figs. 3 and 13).

    Args:
        dataset: `"cifar10"`, `"cifar100"`, `"flowers102"`, `"food101"` or `"imagenet"`.
        cost: `"params"`, trainable parameters, or `"macs"`, multiply-accumulates for one image.
        results: a CSV that `python -m keras_mixers reproduce` wrote; the most accurate run of each network is drawn
            filled. Runs that change the network, the images or the data set are skipped.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure. Open markers are what the papers report.

    Raises:
        ValueError: if an argument is not as above.
        FileNotFoundError: if there is no such CSV.
        ImportError: if matplotlib is not installed.

    Example:
        >>> accuracy_against_cost("flowers102").axes[0].get_xlabel()
        'trainable parameters'
    """
    points = accuracy_points(dataset, cost, results)
    figure = style.new_figure(9, 5.5, f"Top-1 accuracy on {dataset}")
    axes = figure.subplots()
    for family in dict.fromkeys([*FAMILIES, *(point.family for point in points)]):
        color, marker = FAMILIES.get(family, OTHERS)
        for ours in (False, True):
            of_family = [point for point in points if point.family == family and point.ours == ours]
            places = [point.cost for point in of_family], [point.top1 for point in of_family]
            fill, label = (color, None) if ours else ("none", family)
            if of_family:
                axes.plot(*places, marker, color=color, mfc=fill, ms=8, mew=1.6, label=label)
    _label_costs(axes, COSTS[cost])
    meaning = "open: published" + (", filled: trained here" if any(point.ours for point in points) else "")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=meaning)  # beside the points, none of which it covers
    return style.saved(figure, save)


def accuracy_against_costs(
    rows: Sequence[Any], title: str = "Top-1 accuracy", save: str | Path | None = None
) -> "Figure":
    """Draws the accuracy of networks against parameters, multiply-accumulates and measured latency, side by side.

    Args:
        rows: what `keras_mixers.benchmark.compare` returns.
        title: of the whole figure.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure. Markers are means over the seeds; bars reach from the worst seed to the best.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure = style.new_figure(12, 4.4, title)
    panels = figure.subplots(1, len(MEASURED_COSTS), sharey=True)
    for axes, (cost, words) in zip(panels, MEASURED_COSTS.items(), strict=True):
        for row in rows:
            color, marker = FAMILIES.get(row.family, OTHERS)
            spread = [[row.top1 - min(row.top1_by_seed)], [max(row.top1_by_seed) - row.top1]]
            look = {"color": color, "marker": marker, "ms": 8, "capsize": 3, "label": row.model}
            axes.errorbar([getattr(row, cost)], [row.top1], yerr=spread, linestyle="none", **look)
        _label_costs(axes, words)
    for axes in panels[1:]:
        axes.set_ylabel("")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return style.saved(figure, save)


def _label_costs(axes: "Axes", label: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set(xscale="log", xlabel=label, ylabel="top-1 accuracy in %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def savings(dim: int = 256, save: str | Path | None = None) -> "Figure":
    """Draws what split channel mixers save of the cost of ConvMixer's (SplitMixer Figs. 5, 11 and 12).

    Args:
        dim: number of channels.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure of three panels: against the width of overlapping segments, against the number of segments
        side by side, and for whole networks on CIFAR-10. Points are counted from kernels of `dim` channels; lines are
        the papers' formulas, such as `1 - α²` for SplitMixer-I.

    Raises:
        ValueError: if `dim` is no whole number of at least 8.
        ImportError: if matplotlib is not installed.

    Example:
        >>> [axes.get_xlabel() for axes in savings(dim=64).axes[:2]]
        ['width of a segment, part of all channels α', 'number of segments s']
    """
    if check_positive_int("dim", dim) < 8:
        raise ValueError(f"dim must be at least 8, so that it can be cut into segments, got dim={dim}.")
    figure = style.new_figure(13, 4.6, "Savings against ConvMixer")
    by_ratio, by_segments, networks = figure.subplots(1, 3)

    ratios = [i / (2 * i - 1) for i in range(2, 7)]
    fine = np.linspace(0.5, 0.75, 50)
    for family, mixer, formula in (
        ("I", layers.ChannelSplitMixerI, lambda ratio: 1 - ratio**2),
        ("V", lambda ratio, block: layers.ChannelSplitMixerV(ratio), lambda ratio: 1 - 2 * ratio**2),
    ):
        color, marker = FAMILIES[f"SplitMixer-{family}"]
        counted = [100 * saved_by([mixer(ratio, block) for block in range(2)], dim)["params"] for ratio in ratios]
        by_ratio.plot(fine, 100 * formula(fine), color=color, lw=1)
        by_ratio.plot(ratios, counted, marker, color=color, label=f"{family}, parameters and MACs")
    by_ratio.set(title="overlapping segments", xlabel="width of a segment, part of all channels α")

    segments = [s for s in range(1, 9) if dim % s == 0]
    fine = np.linspace(1, 8, 100)
    for name, mixer, cost, formula, color, marker in (
        ("II, parameters and MACs", layers.ChannelSplitMixerII, "params", lambda s: 1 - 1 / s**2, style.ORANGE, "^"),
        ("III, parameters", layers.ChannelSplitMixerIII, "params", lambda s: 1 - 1 / s**2, style.GREEN, "v"),
        ("III, MACs", layers.ChannelSplitMixerIII, "macs", lambda s: 1 - 1 / s, style.GREEN, "<"),
        ("IV, parameters and MACs", layers.ChannelSplitMixerIV, "params", lambda s: 1 - 1 / s, style.VERMILION, "D"),
    ):
        by_segments.plot(fine, 100 * formula(fine), color=color, lw=1)
        counted = [100 * saved_by([mixer(s)], dim)[cost] for s in segments]  # each block of II has as many
        size, fill = (5, color) if name.startswith("III") else (9, "none")
        by_segments.plot(segments, counted, marker, color=color, ms=size, mfc=fill, label=name)
    by_segments.set(title="segments side by side", xlabel="number of segments s")

    rows = [
        name
        for name, preset in PRESETS.items()
        if preset.pixels.size == 32 and preset.family != "ConvMixer" and preset.arguments["dim"] == 256
    ]
    baseline = _profile("convmixer_256_8_p2_k5", 10)
    for shift, cost, label, color in ((-0.2, "params", "parameters", style.BLUE), (0.2, "macs", "MACs", style.YELLOW)):
        parts = [100 * (1 - getattr(_profile(name, 10), cost) / getattr(baseline, cost)) for name in rows]
        networks.barh(np.arange(len(rows)) + shift, parts, 0.38, color=color, label=label, ec="0.3", lw=0.5)
    networks.set_yticks(np.arange(len(rows)), rows, fontsize="small")
    networks.invert_yaxis()
    networks.set(title="networks on CIFAR-10", xlabel="saved against convmixer_256_8_p2_k5, in %")
    for axes in (by_ratio, by_segments):
        axes.set_ylabel("saved of ConvMixer's channel mixer, in %")
    for axes in (by_ratio, by_segments, networks):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return style.saved(figure, save)


def saved_by(mixers: Sequence[layers.ChannelSplitMixer], dim: int) -> dict[str, float]:
    """Returns which parts of the cost of ConvMixer's channel mixer split mixers save, on average, without biases.

    Example:
        >>> saved_by([layers.ChannelSplitMixerIII(segments=2)], dim=256)
        {'params': 0.75, 'macs': 0.5}
    """
    for mixer in mixers:
        without_values(mixer.build, (None, 1, 1, dim))
    macs = [mixer.multiply_accumulates((1, 1, 1, dim)) for mixer in mixers]
    params = [count / mixer.kernel_uses for count, mixer in zip(macs, mixers, strict=True)]
    return {"params": float(1 - np.mean(params) / dim**2), "macs": float(1 - np.mean(macs) / dim**2)}


def _point(name: str, dataset: str, cost: str, top1: float, ours: bool = False) -> Point:
    counted = _profile(name, DATASETS[dataset].num_classes)
    return Point(name, get_preset(name).family, getattr(counted, cost), top1, ours)


@functools.cache
def _profile(name: str, num_classes: int) -> Profile:
    size = get_preset(name).pixels.size
    model = without_values(create_model, name, num_classes=num_classes, data_format="channels_last")
    return profile(model, (size, size, 3))
