"""The rows that `reproduce` writes: what each run gave, in a CSV and as a table."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class RunResult:
    """What the run of a recipe gave: a row of the CSV.

    Attributes:
        changes: fields of the recipe that were changed, as `train --set` takes them.
        parameters: trainable parameters of the network.
        top1: accuracy on the test images after the last epoch, in percent.
        published: what a paper reports for it, in percent; None where there is nothing.
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


WHOLE, DECIMAL = ("parameters", "epochs", "seed"), ("top1", "minutes")


def read_results(path: str | Path) -> list[RunResult]:
    """Returns the rows of a CSV; none if it does not exist.

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
        results = []
        for row in reader:
            try:
                row |= {name: int(row[name]) for name in WHOLE} | {name: float(row[name]) for name in DECIMAL}
                results.append(RunResult(**row | {"published": float(row["published"]) if row["published"] else None}))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{str(path)!r} has a row that is damaged or cut short: {row}; remove it.") from error
        return results


def add_result(path: str | Path, result: RunResult) -> None:
    """Adds a row to a CSV, which is made if it does not exist.

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
        published = "" if result.published is None else f"{result.published:.2f}"
        figures = f"{result.parameters:,} | {result.epochs} | {result.top1:.2f} | {published} | {result.minutes:.1f}"
        lines.append(f"| {name} | {figures} | {result.backend}, {result.machine.split(';')[0]} |")
    return "\n".join(lines)
