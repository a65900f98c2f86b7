"""The folder of a run: kept for one process, refused to another run, and empty again after a start that fails."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from keras_mixers.environment import fastest_precision
from keras_mixers.training.recipe import Recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What a run writes into its folder until its first checkpoint.
RUN_FILES = ("recipe.json", "history.csv", "best.keras", "checkpoints", "tensorboard")
# Fields of a recipe that may change on resume: they have no effect on the epochs to come.
FREE_ON_RESUME = {"published", "source"}
# Errors of a disk that is full or refuses to be written to.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES}


@contextlib.contextmanager
def reserved(directory: Path, recipe: Recipe, resume: bool) -> Iterator[Callable[[], None]]:
    """Keeps the folder of a run for this process; gives a function that makes it and writes the recipe of a new run.

    Nothing is written before that. A run that ends without a checkpoint leaves nothing behind.

    Raises:
        ValueError: if the folder holds a run that may not continue with this recipe, or another process trains in it.
        OSError: if it cannot be written to.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    opened = False

    def enter() -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError as error:
            raise OSError(
                f"output_dir={str(directory)!r} cannot be written to: {error.strerror or error}; choose another folder."
            ) from error
        _lock(directory, stack)
        check_run(directory, recipe, resume)

    def make() -> None:
        nonlocal opened
        if made:
            enter()
        opened = True
        if not _holds_run(directory):
            (directory / "recipe.json").write_text(json.dumps(recipe.to_json(), indent=2) + "\n")

    with contextlib.ExitStack() as stack:
        if not made:
            enter()
        try:
            yield make
        except BaseException:
            if opened and not _holds_run(directory):
                _empty(directory, made)
            raise


def _lock(directory: Path, stack: contextlib.ExitStack) -> None:
    """Locks a folder until the stack closes or the process ends, where the system has such locks."""
    if fcntl is None:
        return
    folder = os.open(directory, os.O_RDONLY)
    stack.callback(os.close, folder)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        refused = f"Another process trains in output_dir={str(directory)!r}; wait for it, or choose another folder."
        raise ValueError(refused) from error
    except OSError:  # a file system without locks
        pass


def _empty(directory: Path, made: list[Path]) -> None:
    for path in (directory / name for name in RUN_FILES if (directory / name).exists()):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    with contextlib.suppress(OSError):  # something else is in it
        for folder in made:
            folder.rmdir()


def _holds_run(directory: Path) -> bool:
    """Whether a folder has something of a run that could be lost."""
    return (directory / "model.keras").exists() or any((directory / "checkpoints").glob("epoch_*.npz"))


def choose_precision(recipe: Recipe, directory: Path, resume: bool) -> Recipe:
    """Returns the recipe with what its precision `"auto"` becomes: that of the run that is resumed, or the fastest."""
    if recipe.precision != "auto":
        return recipe
    before = _recipe_in(directory) if resume else None
    return replace(recipe, precision=before.precision if before else fastest_precision())


def _recipe_in(directory: Path) -> Recipe | None:
    """Returns the recipe of the run that a folder holds, None if it holds none."""
    path = directory / "recipe.json"
    if not (path.exists() and _holds_run(directory)):
        return None
    try:
        return Recipe.from_json(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # it may hold anything
        raise ValueError(
            f"{str(path)!r} is damaged, or of another version of this library ({error}); write the recipe of the run "
            "there again, or choose another folder."
        ) from error


def check_run(directory: Path, recipe: Recipe, resume: bool) -> None:
    """Refuses a folder that holds a run, unless it is to be resumed with the recipe that it began with."""
    before = _recipe_in(directory)
    if before is None:
        return
    if not resume:
        advice = "resume it with resume=True (--resume), or choose another folder."
        raise ValueError(f"output_dir={str(directory)!r} holds a run already; {advice}")
    names = [field.name for field in fields(Recipe) if field.name not in FREE_ON_RESUME]
    changed = [name for name in names if getattr(before, name) != getattr(recipe, name)]
    _refuse_changes(directory, [f"{name}={getattr(before, name)!r}" for name in changed], "recipe")


def check_same_start(directory: Path, before: dict[str, Any] | None, start: dict[str, Any]) -> None:
    """Refuses to resume with other images, another split, or other `weights` and `freeze` than a run began with."""
    if before is None:  # an earlier version did not record it
        return
    changed = [f"{name}={before[name]!r}" for name in ("weights", "freeze") if before[name] != start[name]]
    numbered = [str(i) for i in range(len(start["class_names"]))]  # as a copy of the data set without names had them
    if before["class_names"] not in (start["class_names"], numbered):
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
    _refuse_changes(directory, changed, "images, weights and freeze")


def _refuse_changes(directory: Path, before: list[str], same: str) -> None:
    if before:
        raise ValueError(
            f"The run in {str(directory)!r} began with {' and '.join(before)}; resume it with the same {same}, or "
            "choose another folder."
        )


@contextlib.contextmanager
def naming_full_disk(directory: Path) -> Iterator[None]:
    """Turns a failed write into one clear OSError."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:  # others are reported where they happen
            raise
        raise OSError(
            f"The run in {str(directory)!r} cannot be written any more: {error.strerror}; its checkpoints are whole. "
            "Make room there, and resume with resume=True (--resume)."
        ) from error
