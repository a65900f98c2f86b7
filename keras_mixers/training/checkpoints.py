"""A run that is killed resumes where it was: everything that it has learnt, in files that are whole or not there.

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
    """Where a run stands.

    Attributes:
        epoch: epochs that are complete.
        step: batches of the next one that are done.
    """

    epoch: int = 0
    step: int = 0

    def step_at(self, epoch: int, batch: int) -> int:
        """Returns how many batches of an epoch are done, `batch` of them since the run was resumed here."""
        return batch + (self.step if epoch == self.epoch else 0)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        position: where the run stood.
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

    def restore(self, model: keras.Model) -> None:
        """Gives a compiled model, and its optimiser, the values they had.

        Raises:
            ValueError: if the model is another.
        """
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for part in ("model", "optimizer"):
            self._restore(part, model)

    def restore_metrics(self, model: keras.Model) -> None:
        """Gives the metrics of an interrupted epoch the sums they had; to be called when the epoch begins."""
        self._restore("metrics", model)

    def _restore(self, part: str, model: keras.Model) -> None:
        values, variables = self.values[part], _named(_variables(model, part))
        if not self.versions and len(values) == len(variables):
            values = dict(zip(variables, values.values(), strict=True))
        shapes = {name: value.shape for name, value in values.items()}
        expected = {name: tuple(variable.shape) for name, variable in variables.items()}
        if shapes != expected:
            name = next(name for name in [*expected, *shapes] if shapes.get(name) != expected.get(name))
            writer = f", written by {_in_words(self.versions)}," if self.versions else ""
            raise ValueError(
                f"The checkpoint {str(self.path)!r}{writer} is of another {part}: it has {len(shapes)} variables and "
                f"this one {len(expected)}, of which {name!r} differs (shape {shapes.get(name)} there, "
                f"{expected.get(name)} here); resume with the recipe and the versions that wrote it."
            )
        for name, variable in variables.items():
            variable.assign(values[name])


def write_checkpoint(directory: str | Path, model: keras.Model, position: Position, notes: dict[str, Any]) -> Path:
    """Writes a checkpoint, and removes all but the last two.

    Raises:
        OSError: if it cannot be written; the earlier ones are still there.
    """
    directory = Path(directory)
    path = directory / f"epoch_{position.epoch:04d}_step_{position.step:06d}.npz"
    arrays = {
        f"{part}/{name}": keras.ops.convert_to_numpy(variable)
        for part in PARTS
        if part != "metrics" or position.step  # an epoch begins with empty metrics
        for name, variable in _named(_variables(model, part)).items()
    }
    arrays["notes"] = np.array(json.dumps(notes))
    arrays["versions"] = np.array(json.dumps(_versions()))
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
    """Returns the last whole checkpoint of a folder, None if there is none; warns of each that is damaged."""
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
    """Calls `write` with a new file, which takes the place of `path` once it is whole and on the disk."""
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
    values: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    with np.load(path, allow_pickle=False) as arrays:
        for key in sorted(arrays.files):
            part, _, name = key.partition("/")
            if part in values:
                values[part][name] = arrays[key]
        notes = json.loads(str(arrays["notes"]))
        versions = json.loads(str(arrays["versions"])) if "versions" in arrays.files else {}
    epoch, step = map(int, NAME.fullmatch(path.name).groups())
    return Checkpoint(path, Position(epoch, step), values, notes, versions)


def _variables(model: keras.Model, part: str) -> Sequence[keras.Variable]:
    if part == "metrics":
        return [variable for metric in model.metrics for variable in metric.variables]
    return model.variables if part == "model" else model.optimizer.variables


def _named(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """Returns variables by their paths; where several have the same one, the later ones are numbered."""
    named: dict[str, keras.Variable] = {}
    for variable in variables:
        name, count = variable.path, 2
        while name in named:
            name, count = f"{variable.path}#{count}", count + 1
        named[name] = variable
    return named


def _versions() -> dict[str, str]:
    from keras_mixers import __version__

    backend, version = describe_environment().backend.split(maxsplit=1)
    return {"keras_mixers": __version__, "keras": keras.__version__, backend: version}


def _in_words(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
