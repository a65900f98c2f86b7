"""Published runs, run again: a row of a CSV for each, with everything that gave it."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_mixers import backends
from keras_mixers.environment import describe_environment
from keras_mixers.training.devices import find_devices
from keras_mixers.training.recipes import RECIPES, get_recipe
from keras_mixers.training.run import fit


@dataclass(frozen=True)
class Result:
    """What one run gave: a row of the CSV.

    Attributes:
        recipe: its name.
        changes: fields of the recipe that were other, as `train --set` takes them.
        model: the network.
        parameters: its trainable parameters.
        epochs: number of epochs.
        seed: the recipe's.
        top1: accuracy on the test images after the last epoch, in percent.
        published: what a paper reports for it, in percent; empty where there is nothing.
        minutes: how long the training took, with the evaluation after each epoch.
        backend: Keras's backend with its version.
        machine: hardware and versions.
        command: what gave this row.
    """

    recipe: str
    changes: str
    model: str
    parameters: int
    epochs: int
    seed: int
    top1: float
    published: float | None
    minutes: float
    backend: str
    machine: str
    command: str


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
        of_dataset = [recipe for recipe in RECIPES if recipe.startswith(f"{name}_") and RECIPES[recipe].published]
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
) -> list[Result]:
    """Carries out recipes one after the other, and writes a row as soon as each is done.

    A recipe whose row is there already, with the same changes and backend, is passed over; one that was broken off goes
    on. So the same call, again and again, ends with all rows. Of several processes, which share their files, the first
    one writes.

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
    wanted = []
    for name, recipe in recipes.items():
        done = {(result.recipe, result.changes, result.backend.split()[0]): result for result in read_results(results)}
        result = done.get((name, written, backends.NAME))
        if result is None:
            folder = run_folder(name, written, backends.NAME)
            run = fit(recipe, output_dir=Path(output_dir) / folder, resume=True, **fit_arguments)
            result = Result(
                recipe=name,
                changes=written,
                model=recipe.model,
                parameters=run.metrics["params"],
                epochs=recipe.epochs,
                seed=recipe.seed,
                top1=round(100 * run.metrics["test_accuracy"], 2),
                published=recipe.published,
                minutes=round(run.metrics["seconds"] / 60, 1),
                backend=machine.backend,
                machine=str(machine),
                command=_command(name, changes),
            )
            if find_devices(fit_arguments.get("devices")).writes:
                add_result(results, result)
        wanted.append(result)
    return wanted


def run_folder(recipe: str, changes: str, backend: str) -> str:
    """Returns the name of the folder in which `reproduce` keeps a run, with the changes as in `Result`."""
    return "_".join([recipe, backend, *filter(None, changes.split(";"))])


def read_results(path: str | Path) -> list[Result]:
    """Returns the rows of a CSV; none of one that is not there.

    Raises:
        ValueError: if its columns are others, or a row is damaged.
    """
    path = Path(path)
    if not path.exists():
        return []
    columns = [field.name for field in fields(Result)]
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"{str(path)!r} holds no results: its columns are {reader.fieldnames}, not {columns}.")
        return [_result(path, row) for row in reader]


def _result(path: Path, row: Mapping[str, str]) -> Result:
    try:
        numbers = {name: int(row[name]) for name in ("parameters", "epochs", "seed")}
        numbers |= {name: float(row[name]) for name in ("top1", "minutes")}
        published = float(row["published"]) if row["published"] else None
        return Result(**{**row, **numbers, "published": published})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} has a row that is damaged or cut short: {row}; remove it.") from error


def _command(name: str, changes: Mapping[str, Any]) -> str:
    setting = ["--set", *(f"{field}={value}" for field, value in changes.items())] if changes else []
    command = shlex.join(["python", "-m", "keras_mixers", "reproduce", name, *setting])
    return f"KERAS_BACKEND={backends.NAME} {command}"


def add_result(path: str | Path, result: Result) -> None:
    """Adds a row to a CSV, which it makes if it is not there.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    try:
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Result)])
            if is_new:
                writer.writeheader()
            writer.writerow({name: "" if value is None else value for name, value in asdict(result).items()})
    except OSError as error:
        raise OSError(f"The result cannot be written to {str(path)!r}: {error.strerror or error}.") from error


def markdown(results: Sequence[Result]) -> str:
    """Returns results as a table in Markdown.

    Example:
        >>> print(markdown([Result("r", "", "m", 9, 2, 42, 63.1, None, 1.5, "jax 1", "a CPU", "python ...")]))
        | recipe | parameters | epochs | top-1 (%) | published | minutes | on |
        | --- | ---: | ---: | ---: | ---: | ---: | --- |
        | `r` | 9 | 2 | 63.10 |  | 1.5 | jax 1, a CPU |
    """
    lines = [
        "| recipe | parameters | epochs | top-1 (%) | published | minutes | on |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in results:
        name = f"`{result.recipe}`" + (f" with {result.changes.replace(';', ', ')}" if result.changes else "")
        hardware = result.machine.split(";")[0]
        published = "" if result.published is None else f"{result.published:.2f}"
        lines.append(
            f"| {name} | {result.parameters:,} | {result.epochs} | {result.top1:.2f} | {published} | "
            f"{result.minutes:.1f} | {result.backend}, {hardware} |"
        )
    return "\n".join(lines)
