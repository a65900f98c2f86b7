"""Published runs, run again: a row of a CSV for each, with everything that gave it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_mixers import backends
from keras_mixers.environment import describe_environment
from keras_mixers.models.datasets import find_dataset
from keras_mixers.training.recipes import RECIPES, get_recipe
from keras_mixers.training.results import RunResult, add_result, read_results
from keras_mixers.training.run import fit


def recipes_of(names: Sequence[str]) -> list[str]:
    """Returns the names of recipes that `names` stand for: a data set stands for its published runs.

    Example:
        >>> recipes_of(["food101", "cifar10_smoke"])[-2:]
        ['food101_splitmixer_iv', 'cifar10_smoke']
    """
    found = []
    for name in names:
        tfds = getattr(find_dataset(name), "tfds", None)
        found += [each for each, recipe in RECIPES.items() if recipe.dataset == tfds and recipe.published] or [name]
    return found


def reproduce(
    names: Sequence[str],
    results: str | Path,
    *,
    output_dir: str | Path,
    changes: Mapping[str, Any] | None = None,
    **fit_arguments: Any,
) -> list[RunResult]:
    """Carries out recipes one after the other, and writes a row as soon as each is done.

    A recipe with a row for the same changes and backend is skipped; an interrupted one is resumed, so the same call
    can be repeated until all rows are there. Of several processes, which share their files, the first one writes.

    Args:
        names: recipes, or data sets such as `"cifar10"` for all of their published runs.
        results: the CSV; rows are added to it.
        output_dir: each run gets a folder in it.
        changes: changed fields of the recipes, as for `Recipe.change`.
        **fit_arguments: further arguments of `fit`, such as `data_dir`.

    Returns:
        The results of these names, old and new.

    Raises:
        ValueError: if a name or a change is not known, or `results` cannot be such a file, before anything is trained.
        OSError: if files cannot be written.
    """
    changes = dict(changes or {})
    recipes = {name: get_recipe(name).change(changes) for name in recipes_of(names)}
    settings = [f"{name}={value}" for name, value in changes.items()]
    written = ";".join(settings)
    if Path(results).is_dir() or not Path(results).parent.is_dir():
        advice = "make its folder" if not Path(results).is_dir() else "name a file"
        raise ValueError(f"results must be a file in a folder that exists, got results={str(results)!r}; {advice}.")
    backends.keep_memory()  # before JAX or TensorFlow starts its threads
    machine = describe_environment()
    backend = machine.backend.split()[0]
    wanted = []
    for name, recipe in recipes.items():
        done = {(result.recipe, result.changes, result.backend.split()[0]): result for result in read_results(results)}
        result = done.get((name, written, backend))
        if result is None:
            folder = run_folder(name, written, backend)
            options = ["--set", *settings] if settings else []
            command = shlex.join(["python", "-m", "keras_mixers", "reproduce", name, *options])
            run = fit(recipe, output_dir=Path(output_dir) / folder, resume=True, **fit_arguments)
            result = RunResult(
                recipe=name,
                changes=written,
                model=recipe.model,
                parameters=run.metrics["params"],
                epochs=recipe.epochs,
                seed=recipe.seed,
                top1=round(100 * run.metrics["top1"], 2),
                published=recipe.published,
                minutes=round(run.metrics["seconds"] / 60, 1),
                backend=machine.backend,
                machine=str(machine),
                command=f"KERAS_BACKEND={backend} {command}",
            )
            if run.writes:
                add_result(results, result)
        wanted.append(result)
    return wanted


def run_folder(recipe: str, changes: str, backend: str) -> str:
    """Returns the name of the folder in which `reproduce` keeps a run, with the changes as in `RunResult`."""
    return "_".join([recipe, backend, *filter(None, changes.split(";"))])
