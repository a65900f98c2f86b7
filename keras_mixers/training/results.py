"""The rows that `reproduce` writes: what each run gave, in a CSV and as a table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class RunResult:
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


def read_results(path: str | Path) -> list[RunResult]:
    """Returns the rows of a CSV; none of one that is not there.

    Raises:
        ValueError: if its columns are others, or a row is damaged.
    """
    path = Path(path)
    if not path.exists():
        return []
    columns = [field.name for field in fields(RunResult)]
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"{str(path)!r} holds no results: its columns are {reader.fieldnames}, not {columns}.")
        return [_result(path, row) for row in reader]


def _result(path: Path, row: Mapping[str, str]) -> RunResult:
    try:
        numbers = {name: int(row[name]) for name in ("parameters", "epochs", "seed")}
        numbers |= {name: float(row[name]) for name in ("top1", "minutes")}
        published = float(row["published"]) if row["published"] else None
        return RunResult(**{**row, **numbers, "published": published})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} has a row that is damaged or cut short: {row}; remove it.") from error


def add_result(path: str | Path, result: RunResult) -> None:
    """Adds a row to a CSV, which it makes if it is not there.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    try:
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(RunResult)])
            if is_new:
                writer.writeheader()
            writer.writerow({name: "" if value is None else value for name, value in asdict(result).items()})
    except OSError as error:
        raise OSError(f"The result cannot be written to {str(path)!r}: {error.strerror or error}.") from error


def markdown(results: Sequence[RunResult]) -> str:
    """Returns results as a table in Markdown.

    Example:
        >>> print(markdown([RunResult("r", "", "m", 9, 2, 42, 63.1, None, 1.5, "jax 1", "a CPU", "python ...")]))
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
