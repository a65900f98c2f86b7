"""A run that is killed resumes where it was, from files that are whole or not there.

A checkpoint is one .npz file without any pickled code: the variables of the model, of the optimiser and of the metrics
by their names, where the run stands, and the versions that wrote it. The zip format's checksums reveal a file that was
cut short or damaged.
"""

import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from keras_mixers.environment import describe_environment

NAME = re.compile(r"epoch_(\d+)_step_(\d+)\.npz")
KEPT = 2
PARTS = ("model", "optimizer", "metrics")


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands: how many epochs are complete, and how many batches of the next one are done."""

    epoch: int = 0
    step: int = 0

    def step_at(self, epoch: int, batch: int) -> int:
        """Returns how many batches of an epoch are done, `batch` of them since the run was resumed here."""
        return batch + (self.step if epoch == self.epoch else 0)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        values: the variables of `"model"`, `"optimizer"` and `"metrics"`, by name; version 0.1 of the library wrote
            them without names, in Keras's order.
        notes: what else the run needs to know, as JSON has it.
        versions: of this library, Keras and the backend that wrote it; empty for version 0.1.
    """

    path: Path
    position: Position
    values: dict[str, dict[str, np.ndarray]]
    notes: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)

    def restore(self, model: keras.Model, parts: Sequence[str] = ("model", "optimizer")) -> None:
        """Gives parts of a compiled model, and of the built optimiser, the values they had.

        Raises:
            ValueError: if the model is another.
        """
        for part in parts:
            values, variables = self.values[part], _variables(model, part)
            if not self.versions and len(values) == len(variables):
                values = dict(zip(variables, values.values(), strict=True))
            shapes = {name: value.shape for name, value in values.items()}
            expected = {name: tuple(variable.shape) for name, variable in variables.items()}
            if shapes != expected:
                self._refuse(part, shapes, expected)
            for name, variable in variables.items():
                variable.assign(values[name])

    def _refuse(self, part: str, shapes: dict[str, tuple], expected: dict[str, tuple]) -> None:
        name = next(name for name in [*expected, *shapes] if shapes.get(name) != expected.get(name))
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        writer = f", written by {versions}," if versions else ""
        raise ValueError(
            f"The checkpoint {str(self.path)!r}{writer} is of another {part}: it has {len(shapes)} variables and this "
            f"one {len(expected)}, of which {name!r} differs (shape {shapes.get(name)} there, {expected.get(name)} "
            "here); resume with the recipe and the versions that wrote it."
        )


def write_checkpoint(directory: str | Path, model: keras.Model, position: Position, notes: dict[str, Any]) -> Path:
    """Writes a checkpoint, and removes all but the last two; if it cannot be written, the earlier ones are kept."""
    directory = Path(directory)
    path = directory / f"epoch_{position.epoch:04d}_step_{position.step:06d}.npz"
    arrays = {
        f"{part}/{name}": keras.ops.convert_to_numpy(variable)
        for part in PARTS
        if part != "metrics" or position.step  # an epoch begins with empty metrics
        for name, variable in _variables(model, part).items()
    }
    from keras_mixers import __version__

    backend, version = describe_environment().backend.split(maxsplit=1)
    versions = {"keras_mixers": __version__, "keras": keras.__version__, backend: version}
    arrays |= {"notes": np.array(json.dumps(notes)), "versions": np.array(json.dumps(versions))}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise OSError(
            f"The checkpoint {str(path)!r} could not be written: {error.strerror or error}; the earlier ones in that "
            "folder are whole, and the run resumes from them."
        ) from error
    for old in checkpoint_paths(directory)[:-KEPT]:
        old.unlink()
    return path


def last_checkpoint(directory: str | Path) -> Checkpoint | None:
    """Returns the last whole checkpoint of a folder, None if there is none; warns of each damaged one."""
    for path in reversed(checkpoint_paths(Path(directory))):
        try:
            return _read(path)
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            warnings.warn(
                f"The checkpoint {str(path)!r} is damaged ({error}); the one before it is used.", stacklevel=2
            )
    return None


def checkpoint_paths(directory: Path) -> list[Path]:
    """Returns the checkpoints of a folder, the last one at the end."""
    return sorted(path for path in directory.glob("*.npz") if NAME.fullmatch(path.name))


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write` with a new file, which replaces `path` once it is whole and on the disk."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    try:
        with file:
            if path.exists():
                shutil.copymode(path, file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)  # once it is closed: Windows replaces no open file
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> Checkpoint:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in sorted(file.files)}
    notes, versions = json.loads(str(arrays.pop("notes"))), json.loads(str(arrays.pop("versions", "{}")))
    values: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for key, array in arrays.items():
        part, _, name = key.partition("/")
        values[part][name] = array
    return Checkpoint(path, Position(*map(int, NAME.fullmatch(path.name).groups())), values, notes, versions)


def _variables(model: keras.Model, part: str) -> dict[str, keras.Variable]:
    """Returns the variables of a part by their paths; where several have the same one, the later ones are numbered."""
    if part == "metrics":
        variables = [variable for metric in model.metrics for variable in metric.variables]
    else:
        variables = model.variables if part == "model" else model.optimizer.variables
    named: dict[str, keras.Variable] = {}
    for variable in variables:
        name, count = variable.path, 2
        while name in named:
            name, count = f"{variable.path}#{count}", count + 1
        named[name] = variable
    return named
