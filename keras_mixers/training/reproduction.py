"""Published runs, run again: a row of a CSV for each, with everything that gave it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_mixers.environment import describe_environment
from keras_mixers.models.datasets import find_dataset
from keras_mixers.training.recipes import RECIPES, get_recipe
from keras_mixers.training.results import RunResult, add_result, read_results
from keras_mixers.training.run import fit


def recipes_of(names: Sequence[str]) -> list[str]:
    """Returns the recipes that names stand for: a recipe for itself, a data set for its published runs.

    Raises:
        ValueError: if a name is neither; the message names the nearest recipe.

    Example:
        >>> recipes_of(["food101", "cifar10_smoke"])[-2:]
        ['food101_splitmixer_iv', 'cifar10_smoke']
    """
    found = []
    for name in names:
        row = find_dataset(name)
        of_dataset = [
            each for each, recipe in RECIPES.items() if row and recipe.dataset == row.tfds and recipe.published
        ]
        found += of_dataset or [name]
    for name in found:
        get_recipe(name)
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

    A recipe whose row is there already, with the same changes and backend, is skipped; an interrupted one is resumed.
    So the same call, again and again, ends with all rows. Of several processes, which share their files, the first one
    writes.

    Args:
        names: recipes, or data sets such as `"cifar10"` for all of their published runs.
        results: the CSV; rows are added to it.
        output_dir: each run gets a folder in it.
        changes: fields of the recipes that are to be other, as for `Recipe.change`.
        **fit_arguments: further arguments of `fit`, such as `data_dir`.

    Returns:
        The results of these names, those that were there among them.

    Raises:
        ValueError: if a name or a change is not known, or `results` cannot be such a file, before anything is trained.
        OSError: if files cannot be written.
    """
    changes = dict(changes or {})
    recipes = {name: get_recipe(name).change(changes) for name in recipes_of(names)}
    written = ";".join(f"{name}={value}" for name, value in changes.items())
    if Path(results).is_dir() or not Path(results).parent.is_dir():
        raise ValueError(
            f"results must be a file in a folder that exists, got results={str(results)!r}; make its folder."
        )
    machine = describe_environment()
    backend = machine.backend.split()[0]
    wanted = []
    for name, recipe in recipes.items():
        done = {(result.recipe, result.changes, result.backend.split()[0]): result for result in read_results(results)}
        result = done.get((name, written, backend))
        if result is None:
            folder = run_folder(name, written, backend)
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
                command=_command(name, changes, backend),
            )
            if run.writes:
                add_result(results, result)
        wanted.append(result)
    return wanted


def run_folder(recipe: str, changes: str, backend: str) -> str:
    """Returns the name of the folder in which `reproduce` keeps a run, with the changes as in `RunResult`."""
    return "_".join([recipe, backend, *filter(None, changes.split(";"))])


def _command(name: str, changes: Mapping[str, Any], backend: str) -> str:
    setting = ["--set", *(f"{field}={value}" for field, value in changes.items())] if changes else []
    command = shlex.join(["python", "-m", "keras_mixers", "reproduce", name, *setting])
    return f"KERAS_BACKEND={backend} {command}"
