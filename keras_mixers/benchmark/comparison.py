"""Networks of the table, trained with one recipe: what each reaches, and what it costs."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.benchmark.subjects import inference_subject, time_in_rounds, warm_up
from keras_mixers.data import Images
from keras_mixers.environment import describe_environment
from keras_mixers.models import get_preset
from keras_mixers.models.datasets import find_dataset
from keras_mixers.profiling import Profile, profile, without_values
from keras_mixers.training.folder import check_run, check_same_start, choose_precision
from keras_mixers.training.prepare import load_images, make_model, start_of
from keras_mixers.training.recipe import Recipe
from keras_mixers.training.recipes import get_recipe
from keras_mixers.training.run import fit, read_metrics
from keras_mixers.visualize.costs import accuracy_against_costs

SEVERAL = ("top1_by_seed", "seeds")  # columns of several values
ROUNDS, LATENCY_BATCHES, BATCH = 11, 10, 64


@dataclass(frozen=True)
class Compared:
    """What a network reached and costs: a row of the table.

    Attributes:
        params: trainable parameters.
        macs: multiply-accumulates for one image.
        top1: accuracy on the test images after the last epoch in percent, mean over the seeds.
        top1_by_seed: the same for each of `seeds`.
        latency_ms: time of inference of one image in milliseconds, median of rounds in which all networks take turns.
        images_per_second: of inference in batches of 64, likewise.
        minutes: how long a run took, with the evaluation after each epoch, mean over the seeds.
        changes: fields of the recipe that were changed, as `--set` takes them.
    """

    model: str
    family: str
    params: int
    macs: int
    top1: float
    top1_by_seed: tuple[float, ...]
    latency_ms: float
    images_per_second: float
    minutes: float
    seeds: tuple[int, ...]
    epochs: int
    recipe: str
    changes: str
    precision: str
    machine: str


def compare(
    models: Sequence[str],
    recipe: str,
    *,
    output_dir: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    data_dir: str | Path | None = None,
    download: bool = True,
    train_images: Images | None = None,
    test_images: Images | None = None,
    verbose: bool = True,
    **fit_arguments: Any,
) -> list[Compared]:
    """Trains networks with one recipe and a few seeds, and says what each reaches and costs.

    `output_dir` gets a folder for each run, as `fit` leaves it, then `comparison.csv`, `comparison.md` and, where
    matplotlib is installed, `comparison.png`: accuracy against parameters, multiply-accumulates and latency. Every
    network gets as many classes as the images have, and images of the recipe's size.

    Args:
        models: names of the table.
        recipe: name of the recipe; its network is replaced by each of these.
        output_dir: the folder.
        seeds: each network is trained once with each, all networks with the first before any with the second.
        changes: changed fields of the recipe, as for `Recipe.change`; a `dataset` of the table of data sets brings the
            size of its images too.
        resume: whether to resume the comparison that this folder holds: finished runs are skipped, an interrupted one
            is resumed.
        data_dir: where TFDS keeps its data; its own folder by default.
        download: whether TFDS may fetch a data set that is not there.
        train_images: images to train on, in place of the recipe's data set.
        test_images: images to evaluate, likewise.
        verbose: whether the progress of each run is shown.
        **fit_arguments: further arguments of `fit`, such as `checkpoint_minutes`.

    Returns:
        A `Compared` for each network, in the order of `models`.

    Raises:
        ValueError: if a name or a change is not known, a network does not take the images, or the folder holds other
            runs, before anything is trained.
        FileNotFoundError: if the data set is not there, and may not be fetched.
        OSError: if files cannot be written.
        FloatingPointError: if a loss becomes infinite or not a number.
    """
    backends.keep_memory()  # before JAX or TensorFlow starts its threads
    models, seeds, changes = list(dict.fromkeys(models)), list(dict.fromkeys(seeds)), dict(changes or {})
    if not (models and seeds):
        raise ValueError(f"models and seeds must name at least one each, got models={models}, seeds={seeds}.")
    base = recipe_of(recipe, changes)
    folders = {(name, seed): Path(output_dir, f"{name}_seed_{seed}") for seed in seeds for name in models}
    recipes = {
        (name, seed): choose_precision(replace(base, model=name, seed=seed), folder, resume)
        for (name, seed), folder in folders.items()
    }
    for run, folder in folders.items():
        check_run(folder, recipes[run], resume)
    images = load_images(base, data_dir, download, train_images, test_images, verbose)
    classes = images[0].class_names
    profiles = {name: without_values(_profile, recipes[name, seeds[0]], classes) for name in models}

    metrics = {}
    for run, folder in folders.items():
        finished = folder / "metrics.json"
        if finished.exists():
            metrics[run] = read_metrics(finished)
            check_same_start(folder, metrics[run]["start"], start_of(*images))
        else:
            both = {"train_images": images[0], "test_images": images[1]}
            metrics[run] = fit(
                recipes[run], output_dir=folder, resume=resume, verbose=verbose, **both, **fit_arguments
            ).metrics
    networks = {name: make_model(recipes[name, seeds[0]], classes) for name in models}
    latency, throughput = (_seconds_per_image(networks, base.pixels.size, batch) for batch in (1, BATCH))
    rows = []
    for name in models:
        of_seeds = [metrics[name, seed] for seed in seeds]
        top1 = [100 * each["top1"] for each in of_seeds]
        rows.append(
            Compared(
                model=name,
                family=get_preset(name).family,
                params=profiles[name].params,
                macs=profiles[name].macs,
                top1=round(float(np.mean(top1)), 2),
                top1_by_seed=tuple(round(value, 2) for value in top1),
                latency_ms=round(1000 * latency[name], 3),
                images_per_second=round(1 / throughput[name], 1),
                minutes=round(float(np.mean([each["seconds"] for each in of_seeds])) / 60, 1),
                seeds=tuple(seeds),
                epochs=base.epochs,
                recipe=recipe,
                changes=";".join(f"{name}={value}" for name, value in changes.items()),
                precision=recipes[name, seeds[0]].precision,
                machine=str(describe_environment()),
            )
        )
    _write(rows, Path(output_dir))
    return rows


def recipe_of(name: str, changes: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a comparison: of no paper, and with images of the size that its data set has."""
    own = [name for name in ("model", "seed") if name in changes]
    if own:
        raise ValueError(f"A comparison sets model and seed itself, got changes of {own}; use --models and --seeds.")
    row = find_dataset(changes.get("dataset"))
    recipe = replace(get_recipe(name), published=None, source="")
    if row is not None and row.tfds != recipe.dataset:
        recipe = replace(recipe, pixels=row.pixels)
    return recipe.change(changes)


def _profile(recipe: Recipe, classes: Sequence[str]) -> Profile:
    size = recipe.pixels.size
    return profile(make_model(recipe, classes), (size, size, 3))


def _seconds_per_image(networks: Mapping[str, keras.Model], size: int, batch: int) -> dict[str, float]:
    """Returns the median over rounds in which all networks take turns."""
    images = np.random.default_rng(0).standard_normal((batch, size, size, 3), dtype="float32")
    subjects = [inference_subject(name, network, images) for name, network in networks.items()]
    for subject in subjects:
        warm_up(subject)
    batches = max(LATENCY_BATCHES // batch, 1)
    times = time_in_rounds(subjects, ROUNDS, batches)
    return {name: float(np.median(seconds)) / batches / batch for name, seconds in times.items()}


def _write(rows: Sequence[Compared], directory: Path) -> None:
    with (directory / "comparison.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Compared)])
        writer.writeheader()
        for row in rows:
            values = asdict(row) | {name: " ".join(map(str, getattr(row, name))) for name in SEVERAL}
            writer.writerow(values)
    (directory / "comparison.md").write_text(markdown(rows) + "\n")
    if find_spec("matplotlib"):
        accuracy_against_costs(rows, save=directory / "comparison.png")


def markdown(rows: Sequence[Compared]) -> str:
    """Returns a comparison as a table in Markdown, with a line on how it was made."""
    first = rows[0]
    lines = [
        "| model | family | parameters | MACs | top-1 (%) | by seed | latency (ms) | images/s | minutes |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        by_seed = " ".join(f"{value:.2f}" for value in row.top1_by_seed)
        costs = f"{row.latency_ms:.2f} | {row.images_per_second:,.0f} | {row.minutes:.1f}"
        sizes = f"{row.params:,} | {row.macs:,}"
        lines.append(f"| `{row.model}` | {row.family} | {sizes} | {row.top1:.2f} | {by_seed} | {costs} |")
    changes = f" with {first.changes.replace(';', ', ')}" if first.changes else ""
    epochs = f"{first.epochs} epoch" + "s" * (first.epochs != 1)
    how = f"Recipe `{first.recipe}`{changes}: {epochs}, seeds {', '.join(map(str, first.seeds))}, "
    lines += ["", f"{how}{first.precision}. Latency: one image; images/s: batches of {BATCH}. {first.machine}."]
    return "\n".join(lines)
