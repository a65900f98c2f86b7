"""What a benchmark found: medians and ratios from the times, as a table, CSV and JSON."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np

from keras_mixers import backends
from keras_mixers.benchmark.peers import PEERS
from keras_mixers.benchmark.subjects import OURS, Task
from keras_mixers.environment import Environment
from keras_mixers.profiling.table import aligned

# The part of all cores above which other processes make the ratios of a task useless.
DISTURBING_LOAD = 0.1
# In a batch: 40 MB anew.
MANY_PAGE_FAULTS = 10_000


@dataclass(frozen=True)
class Timing:
    """How one subject, `"ours"` or a peer, did at one task; None stands for what was not measured."""

    backend: str
    model: str
    subject: str
    mode: str
    batch: int
    image_size: int
    precision: str
    images_per_second: float  # median over the rounds
    low: float  # first quartile
    high: float  # third quartile
    ours_to_this: float  # our images per second relative to the subject's in the same round, median over the rounds
    latency_ms: float | None = None  # median, for a batch of 1 only
    peak_memory_mb: float | None = None  # millions of bytes: of its whole process on a CPU, of its tensors on a GPU
    load_of_others: float | None = None  # mean number of cores that other processes kept busy
    page_faults: int | None = None  # pages of memory that the system provided anew for one batch

    @property
    def disturbed(self) -> bool:
        """Whether other processes were so busy that the times and ratios do not count."""
        return (self.load_of_others or 0) > DISTURBING_LOAD * os.cpu_count()

    @property
    def gives_memory_back(self) -> bool:
        """Whether memory is returned to the system after each batch, and requested again for the next."""
        return (self.page_faults or 0) > MANY_PAGE_FAULTS


@dataclass(frozen=True)
class Report:
    """What a benchmark found; `print` shows it as a table."""

    machine: Environment
    results: tuple[Timing, ...]  # one for each task and subject
    notes: tuple[str, ...] = ()  # a sentence for each peer that a model was not compared with

    def __str__(self) -> str:
        precisions = ", ".join(dict.fromkeys(result.precision for result in self.results))
        parts = [str(self.machine), aligned(_rows(self.results))]
        if comparisons := _comparisons(self.results):
            heading = ("images/s of ours to those of the fastest", "mode", "batch", "ratio", "peer")
            parts.append(aligned([heading, *comparisons]))
        parts.append(
            f"{precisions}; images/s: median (quartiles) over the rounds; ours/this: images/s of ours to those of the "
            "subject,\nmedian of the ratios within a round."
        )
        return "\n\n".join([*parts, *self.notes, *_warnings(self.results)])

    def append_csv(self, path: str | Path) -> None:
        """Appends a row for each result, with the machine in its last columns, under a heading if the file is new."""
        path = check_csv(path)
        new = not path.exists() or not path.stat().st_size
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(CSV_COLUMNS)
            writer.writerows(astuple(result) + astuple(self.machine) for result in self.results)

    def write_json(self, path: str | Path) -> None:
        """Writes machine, results and notes."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")


CSV_COLUMNS = *(field.name for field in fields(Timing)), *(f"machine_{field.name}" for field in fields(Environment))


def summarize(
    task: Task,
    times: dict[str, list[float]],
    batches: int,
    peaks: dict[str, float],
    load_of_others: float | None = None,
    page_faults: Mapping[str, int | None] | None = None,
) -> list[Timing]:
    """Turns the seconds that each subject took for `batches` batches in each round into the results of a task."""

    def timing(name: str) -> Timing:
        seconds = np.array(times[name])
        low, median, high = np.quantile(task.batch * batches / seconds, [0.25, 0.5, 0.75])
        return Timing(
            backend=backends.NAME,
            subject=name,
            images_per_second=float(median),
            low=float(low),
            high=float(high),
            ours_to_this=float(np.median(seconds / np.array(times[OURS]))),
            latency_ms=float(np.median(seconds / batches)) * 1000 if task.batch == 1 else None,
            peak_memory_mb=peaks.get(name),
            load_of_others=load_of_others,
            page_faults=(page_faults or {}).get(name),
            **asdict(task),
        )

    return list(map(timing, times))


def check_csv(path: str | Path) -> Path:
    """Returns `path` if results can be appended to it."""
    path = check_folder("csv", path)
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            columns = tuple(next(csv.reader(file)))
        if columns != CSV_COLUMNS:
            raise ValueError(
                f"csv must be a new file or one of earlier results, got csv={str(path)!r} with other columns; "
                "choose another name."
            )
    return path


def check_folder(name: str, path: str | Path) -> Path:
    """Returns `path` if a file can be written there."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {name}={str(path)!r}; make its folder.")
    return path


def _rows(results: Sequence[Timing]) -> list[Sequence[object]]:
    """Returns the table of all results, without empty columns."""
    rows = [
        {
            "model": result.model,
            "image": result.image_size,
            "mode": result.mode,
            "batch": result.batch,
            "subject": result.subject,
            "images/s": f"{result.images_per_second:,.1f} ({result.low:,.1f} - {result.high:,.1f})",
            "ours/this": f"{result.ours_to_this:,.2f}",
            "latency in ms": "" if result.latency_ms is None else f"{result.latency_ms:,.2f}",
            "peak memory in MB": "" if result.peak_memory_mb is None else f"{result.peak_memory_mb:,.0f}",
        }
        for result in results
    ]
    headings = [heading for heading in rows[0] if any(row[heading] != "" for row in rows)]
    return [headings, *([row[heading] for heading in headings] for row in rows)]


def _comparisons(results: Sequence[Timing]) -> list[tuple[object, ...]]:
    """Returns, for each task and kind of peer, the ratio of ours to the fastest of that kind."""
    tasks: dict[tuple, list[Timing]] = {}
    for result in results:
        tasks.setdefault((result.model, result.image_size, result.mode, result.batch), []).append(result)
    rows = []
    for (model, _, mode, batch), subjects in tasks.items():
        for names in PEERS.values():
            peers = [result for result in subjects if result.subject in names]
            if peers:
                best = max(peers, key=lambda result: result.images_per_second)
                rows.append((model, mode, batch, f"{best.ours_to_this:.2f}", best.subject))
    return rows


def _warnings(results: Sequence[Timing]) -> list[str]:
    """Returns a sentence for each task that other processes disturbed, and each subject that gives memory back."""
    warnings = [
        f"DISTURBED: other processes kept {result.load_of_others:.1f} of {os.cpu_count()} cores busy while "
        f"{result.model} was timed ({result.mode}, batch {result.batch}), so its ratios do not count; measure again "
        "when the machine is idle."
        for result in results
        if result.disturbed
    ]
    warnings += [
        f"MEMORY GIVEN BACK: {result.subject!r} took {result.page_faults:,} page faults for a batch of {result.batch} "
        f"({result.model}, {result.mode}); with kept memory (keep_memory=True) it may be twice as fast."
        for result in results
        if result.gives_memory_back
    ]
    return list(dict.fromkeys(warnings))
