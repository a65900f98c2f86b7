"""The folder of a run: kept for one process, refused to another run, and empty again after a start that fails."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from keras_mixers.environment import fastest_precision
from keras_mixers.training.recipe import Recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What a run writes into its folder before its first checkpoint, and that.
RUN_FILES = ("recipe.json", "history.csv", "best.keras", "checkpoints", "tensorboard")
# Fields of a recipe that may change on resume: they have no effect on the epochs to come.
FREE_ON_RESUME = {"published", "source"}
# Errors of a disk that is full or refuses to be written to.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES}


class RunFolder:
    """The folder of a run, as a context in which no other process trains there.

    Nothing is written before `open`. A run that ends without a checkpoint leaves nothing behind.

    Args:
        path: the folder.
        recipe: of the run.
        resume: whether a run that the folder holds may continue.

    Raises:
        ValueError: if the folder holds a run that may not continue with this recipe, or another process trains in it.
        OSError: if it cannot be written to.
    """

    def __init__(self, path: Path, recipe: Recipe, resume: bool) -> None:
        self.path, self.recipe, self.resume = path, recipe, resume
        self.stack = contextlib.ExitStack()
        self.made: list[Path] = []
        self.opened = False

    def __enter__(self) -> "RunFolder":
        with self.stack:
            if self.path.exists():
                self._enter_existing()
            self.stack = self.stack.pop_all()
        return self

    def open(self) -> None:
        """Makes the folder, and writes the recipe of a new run."""
        if not self.path.exists():
            self.made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            with self._naming_unwritable():
                self.path.mkdir(parents=True, exist_ok=True)
            self._enter_existing()
        self.opened = True
        if not holds_run(self.path):
            (self.path / "recipe.json").write_text(json.dumps(self.recipe.to_json(), indent=2) + "\n")

    def __exit__(self, kind: type | None, *_: object) -> None:
        with self.stack:
            if kind is None or not self.opened or holds_run(self.path):
                return
            for path in (self.path / name for name in RUN_FILES):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else is in it
                for folder in self.made:
                    folder.rmdir()

    def _enter_existing(self) -> None:
        with self._naming_unwritable(), tempfile.TemporaryFile(dir=self.path):
            pass
        self.stack.enter_context(locked(self.path))
        check_run(self.path, self.recipe, self.resume)

    @contextlib.contextmanager
    def _naming_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"output_dir={str(self.path)!r} cannot be written to: {error.strerror or error}; choose another folder."
            ) from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps a folder for this process, where the system has such locks; the lock ends with the process."""
    if fcntl is None:
        yield
        return
    folder = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"Another process trains in output_dir={str(directory)!r}; wait until it has ended, or choose another "
                "folder."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)


def holds_run(directory: Path) -> bool:
    """Whether a folder has something of a run that could be lost."""
    return (directory / "model.keras").exists() or any((directory / "checkpoints").glob("epoch_*.npz"))


def choose_precision(recipe: Recipe, directory: Path, resume: bool) -> Recipe:
    """Returns the recipe with what its precision `"auto"` becomes: that of the run that is resumed, or the fastest."""
    if recipe.precision != "auto":
        return recipe
    path = directory / "recipe.json"
    resumed = resume and path.exists() and holds_run(directory)
    return replace(recipe, precision=json.loads(path.read_text())["precision"] if resumed else fastest_precision())


def check_run(directory: Path, recipe: Recipe, resume: bool) -> None:
    """Refuses a folder with a run that may not continue."""
    path = directory / "recipe.json"
    if not (path.exists() and holds_run(directory)):
        return
    if not resume:
        raise ValueError(
            f"output_dir={str(directory)!r} holds a run already; resume it with resume=True (--resume), or choose "
            "another folder."
        )
    before = Recipe.from_json(json.loads(path.read_text()))
    changed = [
        f"{field.name}={getattr(before, field.name)!r}"
        for field in fields(Recipe)
        if field.name not in FREE_ON_RESUME and getattr(before, field.name) != getattr(recipe, field.name)
    ]
    if changed:
        raise ValueError(
            f"The run in {str(directory)!r} began with {', '.join(changed)}; resume it with the same recipe, or "
            "choose another folder."
        )


def check_same_start(directory: Path, before: dict[str, Any] | None, start: dict[str, Any]) -> None:
    """Refuses to resume with other images, another split, or other `weights` and `freeze` than a run began with.

    Args:
        directory: its folder.
        before: what `describe_start` gave when it began; None for a run of an earlier version, which did not record it.
        start: what it gives now.
    """
    if before is None:
        return
    changed = [f"{name}={before[name]!r}" for name in ("weights", "freeze") if before[name] != start[name]]
    if before["class_names"] != start["class_names"]:
        changed.append(f"the classes {', '.join(before['class_names'][:5])}")
    parts = [each["train_images"].get("validation_part") for each in (before, start)]
    if parts[0] != parts[1]:
        changed.append(f"validation_part={parts[0]}")
    else:
        changed += [
            f"other {name} ({before[name]['count']:,} where there are {start[name]['count']:,})"
            for name in ("train_images", "test_images")
            if any(before[name].get(key) != start[name].get(key) for key in ("count", "files"))
        ]
    if changed:
        raise ValueError(
            f"The run in {str(directory)!r} began with {' and '.join(changed)}; resume it with the same, "
            "or choose another folder."
        )


@contextlib.contextmanager
def naming_full_disk(directory: Path) -> Iterator[None]:
    """Turns a failed write into one clear error.

    Raises:
        OSError: if the disk is full, or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:  # others are reported where they happen
            raise
        raise OSError(
            f"The run in {str(directory)!r} cannot be written any more: {error.strerror}; its checkpoints are whole. "
            "Make room there, and resume with resume=True (--resume)."
        ) from error
