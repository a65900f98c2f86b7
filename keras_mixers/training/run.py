"""A recipe is carried out: data, network, optimiser, `model.compile` and `model.fit`."""

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.data import Images, eval_batches, load_tfds, train_batches
from keras_mixers.environment import describe_environment
from keras_mixers.models import create_model
from keras_mixers.optimizers.schedule import SCHEDULES
from keras_mixers.training.callbacks import KeepBest, KeepWeights, StopAtNonFiniteLoss, naming_full_disk, save_model
from keras_mixers.training.checkpoints import Checkpoint, Checkpoints, Position, last_checkpoint
from keras_mixers.training.devices import Devices, find_devices
from keras_mixers.training.history import HistoryWriter, read_history
from keras_mixers.training.memory import keep_memory
from keras_mixers.training.progress import Progress
from keras_mixers.training.recipe import OPTIMIZERS, Recipe
from keras_mixers.training.recipes import get_recipe
from keras_mixers.training.whitening import whiten_patches

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What a run writes into its folder before its first checkpoint, and that.
RUN_FILES = ("recipe.json", "history.csv", "best.keras", "checkpoints", "tensorboard")
# Of a recipe, what may differ when a run is resumed: nothing that has an effect on the epochs to come.
FREE_ON_RESUME = {"published", "source"}


@dataclass(frozen=True)
class Run:
    """What a training run gave.

    Attributes:
        model: the trained network, with the averaged weights if the recipe has `ema`.
        history: one dictionary an epoch, as in history.csv; of several processes, the first has it.
        metrics: test accuracy and loss, and what the run was, as in metrics.json.
        directory: where the files are.
    """

    model: keras.Model
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    directory: Path


def fit(
    recipe: Recipe | str,
    *,
    output_dir: str | Path,
    data_dir: str | Path | None = None,
    download: bool = True,
    train_images: Images | None = None,
    test_images: Images | None = None,
    weights: str | Path | None = None,
    freeze: int = 0,
    resume: bool = False,
    checkpoint_minutes: float = 15,
    devices: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> Run:
    """Trains as a recipe says and leaves everything in one folder.

    The folder gets `model.keras` and `best.keras` (which know their classes and pixels), `history.csv`, `metrics.json`,
    `recipe.json`, `curves.png` where matplotlib is installed, and `checkpoints/` after each epoch and every few
    minutes. A run that was killed goes on from there with `resume`: the same curve as an unbroken one. SIGTERM and
    Ctrl-C write a checkpoint first. What fails before there is a checkpoint leaves nothing in the folder.

    Args:
        recipe: a `Recipe`, or the name of one of `RECIPES`.
        output_dir: the folder.
        data_dir: where TFDS keeps its data; its own folder by default.
        download: whether TFDS fetches a data set that is not there.
        train_images: images to train on, in the place of the recipe's data set.
        test_images: images to evaluate after each epoch, likewise.
        weights: trained weights to start from, with a new head: whatever `weights=` of a network takes.
        freeze: number of blocks, from the first, whose weights stay as they are, and the embedding's too; 0 for none.
        resume: whether a run that this folder holds goes on, with the same recipe, images, `weights` and `freeze`;
            without it a folder with a run is refused.
        checkpoint_minutes: how often a checkpoint is written within an epoch.
        devices: how many of this machine's accelerators share each batch; all by default. Several processes join
            with `join_processes` before.
        callbacks: further Keras callbacks, of each process.
        verbose: Keras's: 0 is silent, 1 shows a progress bar, 2 one line an epoch.

    Returns:
        A `Run`.

    Raises:
        ValueError: if there is no such recipe, the folder holds another run or one that another process trains, or
            the images have other classes than the test images.
        FileNotFoundError: if the data set is not there, and may not be fetched.
        OSError: if files cannot be written.
        FloatingPointError: if the loss becomes infinite or not a number.
        ConnectionError: if the data set cannot be fetched, or another process of the run has ended.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    devices = find_devices(devices)
    batch_size = shared_batch_size(recipe, devices)
    check_sizes(recipe)
    directory = Path(output_dir)
    with (
        devices.naming_lost_processes(),
        naming_full_disk(directory),
        run_folder(directory, recipe, resume) if devices.writes else contextlib.nullcontext(),
        devices.scope(),
    ):
        checkpoint = find_checkpoint(directory, resume, devices)
        train_images, test_images = load_images(recipe, data_dir, download, train_images, test_images, bool(verbose))
        start = describe_start(train_images, test_images, weights, freeze)
        if checkpoint is not None:
            check_same_start(directory, checkpoint.notes.get("start"), start)

        keep_memory()
        keras.utils.set_random_seed(recipe.seed)
        model = make_model(recipe, train_images.class_names, weights)
        if recipe.whitening:
            whiten_patches(model, train_images, recipe.pixels, recipe.seed)
        freeze_blocks(model, freeze)
        batches_per_epoch = math.ceil(train_images.count / batch_size)
        compile_model(model, recipe, batches_per_epoch)
        devices.prepare(model)

        pixels = {"mean": recipe.pixels.mean, "std": recipe.pixels.std, "share": devices.share}
        test = eval_batches(
            test_images,
            batch_size,
            recipe.pixels.size,
            crop_fraction=recipe.pixels.crop_fraction,
            interpolation=recipe.pixels.interpolation,
            **pixels,
        )
        test, test_steps = devices.repeated(test)

        position, notes = Position(), {"best": None, "start": start}
        if checkpoint is not None:
            checkpoint.restore(model)
            position = checkpoint.position
            notes |= {"start": start, **checkpoint.notes}
        averages = [keras.callbacks.SwapEMAWeights()] if recipe.ema else []
        checkpoints = Checkpoints(
            directory / "checkpoints",
            notes,
            minutes=checkpoint_minutes if devices.within_epochs else math.inf,
            writes=devices.writes,
        )
        watching = [*averages, StopAtNonFiniteLoss(checkpoints)]
        if devices.writes:
            watching.append(HistoryWriter(directory / "history.csv", first_epoch=position.epoch))
        watching.append(KeepBest(directory / "best.keras", notes, averages, devices.writes))
        if devices.writes and checkpoint is None:
            (directory / "recipe.json").write_text(json.dumps(recipe.to_json(), indent=2) + "\n")
        if devices.writes and verbose:
            watching.append(Progress(train_images.count, batches_per_epoch, recipe.epochs, checkpoints))
            if position.epoch < recipe.epochs:
                print(first_line(train_images, test_images, devices, directory, position), file=sys.stderr, flush=True)
        with stopping_when_asked(checkpoints):
            while position.epoch < recipe.epochs:
                # An epoch that was broken off has fewer batches than the others, hence its own call of model.fit.
                epochs = range(position.epoch, position.epoch + 1 if position.step else recipe.epochs)
                size = recipe.pixels.size
                if recipe.early_size and position.epoch < recipe.epochs // 2:
                    epochs = range(epochs.start, min(epochs.stop, recipe.epochs // 2))
                    size = recipe.early_size
                checkpoints.start = position
                weights_kept = [KeepWeights()] if recipe.ema else []
                batches = train_batches(
                    train_images,
                    batch_size,
                    size,
                    augmentation=recipe.augmentation,
                    seed=recipe.seed,
                    epochs=epochs,
                    first_batch=position.step,
                    **pixels,
                )
                model.fit(
                    devices.distributed(batches),
                    validation_data=test,
                    validation_steps=test_steps,
                    initial_epoch=epochs.start,
                    epochs=epochs.stop,
                    steps_per_epoch=batches_per_epoch - position.step,
                    callbacks=[RestoreMetrics(checkpoint, position), *watching, checkpoints, *weights_kept, *callbacks],
                    shuffle=False,  # train_batches has shuffled them; Keras would warn that it cannot
                    verbose=0,
                )
                position = Position(epochs.stop)
                for kept in weights_kept:
                    kept.put_back()
        if recipe.ema:
            take_averages(model)
        found = model.evaluate(test, steps=test_steps, verbose=0, return_dict=True)
        return finish(recipe, model, found, directory, devices, start)


def shared_batch_size(recipe: Recipe, devices: Devices) -> int:
    """Returns how many images all devices together take at once."""
    batch_size = recipe.batch_size // recipe.accumulation
    if batch_size % devices.share.devices:
        accumulated = f" / accumulation={recipe.accumulation}" if recipe.accumulation > 1 else ""
        raise ValueError(
            f"The {devices.share.devices} devices must share a batch equally, got batch_size={recipe.batch_size}"
            f"{accumulated}; choose a multiple, or fewer devices."
        )
    if recipe.accumulation > 1 and devices.strategy is not None:
        raise ValueError(
            f"accumulation must be 1 on several TensorFlow devices, got accumulation={recipe.accumulation}: Keras "
            "cannot sum gradients of devices there; choose a smaller batch_size, one device, or JAX."
        )
    return batch_size


def check_sizes(recipe: Recipe) -> None:
    """Refuses to cut small crops out of images that stay large: evaluation would see the whole image instead."""
    size, resize = recipe.pixels.size, recipe.augmentation.resize
    if resize is not None and not size <= resize <= 1.5 * size:
        raise ValueError(
            f"augmentation.resize must go with pixels.size, got augmentation.resize={resize} and pixels.size={size}; "
            f"set augmentation.resize={round(size / recipe.pixels.crop_fraction)} too."
        )


def find_checkpoint(directory: Path, resume: bool, devices: Devices) -> Checkpoint | None:
    """Returns the last checkpoint of the run that goes on, if there is one."""
    checkpoint = last_checkpoint(directory / "checkpoints") if resume else None
    position = checkpoint.position if checkpoint else Position()
    devices.check_agreement(
        "checkpoints (epoch, step)",
        (position.epoch, position.step),
        f"output_dir={str(directory)!r} must be one folder that all of them reach, and resume the same in all",
    )
    return checkpoint


@contextlib.contextmanager
def run_folder(directory: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Makes the folder of a run and keeps it for this process; a run that ends without a checkpoint leaves nothing.

    Raises:
        ValueError: if the folder holds a run that may not go on with this recipe, or another process trains in it.
        OSError: if it cannot be written to.
    """
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"output_dir={str(directory)!r} cannot be written to: {error.strerror or error}; choose another folder."
        ) from error
    with locked(directory):
        check_run(directory, recipe, resume)
        try:
            yield
        except BaseException:
            if not holds_run(directory):
                for path in (directory / name for name in RUN_FILES):
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something else is in it
                    for folder in missing:
                        folder.rmdir()
            raise


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps a folder for this process, where the system has such locks; it ends with the process."""
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


def check_run(directory: Path, recipe: Recipe, resume: bool) -> None:
    """Refuses a folder with a run that may not go on."""
    path = directory / "recipe.json"
    if path.exists() and holds_run(directory):
        if not resume:
            raise ValueError(
                f"output_dir={str(directory)!r} holds a run already; resume=True (--resume) goes on with it, or choose "
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


def describe_start(
    train_images: Images, test_images: Images, weights: str | Path | None, freeze: int
) -> dict[str, Any]:
    """Returns what a run began with beside its recipe, as JSON has it."""
    return {
        "class_names": list(train_images.class_names),
        "train_images": {"count": train_images.count, **train_images.origin},
        "test_images": {"count": test_images.count, **test_images.origin},
        "weights": None if weights is None else str(weights),
        "freeze": freeze,
    }


def check_same_start(directory: Path, before: dict[str, Any] | None, start: dict[str, Any]) -> None:
    """Refuses to go on with other images, another split, or other `weights` and `freeze` than a run began with.

    Args:
        directory: its folder.
        before: what `describe_start` gave; None for a run of an earlier version, which did not record it.
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


def first_line(train_images: Images, test_images: Images, devices: Devices, directory: Path, position: Position) -> str:
    """Returns what is shown before the first batch: what is trained on, by what, and where the files go."""
    machine = describe_environment()
    several = f"{devices.share.devices} x " if devices.share.devices > 1 else ""
    goes_on = f", from epoch {position.epoch + 1}, batch {position.step + 1}" if position != Position() else ""
    return (
        f"{train_images.count:,} images of {train_images.num_classes} classes, {test_images.count:,} to test on; "
        f"{machine.backend} on {several}{machine.gpu or machine.cpu}; {directory}{goes_on}"
    )


def load_images(
    recipe: Recipe,
    data_dir: str | Path | None,
    download: bool,
    train_images: Images | None,
    test_images: Images | None,
    verbose: bool,
) -> tuple[Images, Images]:
    """Returns the images of a recipe, or those that were given in their place."""
    if (train_images is None) != (test_images is None):
        raise ValueError("train_images and test_images must be given together, got only one of them.")
    if train_images is None:
        if recipe.dataset == "folder":
            raise ValueError(
                "The recipe is for images of your own: name their folder with --images, or in Python give train_images "
                "and test_images."
            )
        train_images, test_images = (
            load_tfds(recipe.dataset, split, data_dir, download, limit, verbose)
            for split, limit in ((recipe.train_split, recipe.limit_train), (recipe.test_split, recipe.limit_test))
        )
    if train_images.class_names != test_images.class_names:
        raise ValueError(
            f"Training and test images must have the same classes, got {len(train_images.class_names)} and "
            f"{len(test_images.class_names)} with other names; look at the folders of both."
        )
    return train_images, test_images


def make_model(recipe: Recipe, class_names: Sequence[str], weights: str | Path | None = None) -> keras.Model:
    """Makes the network of a recipe, which knows its classes and pixels; its head is new if it starts from weights."""
    arguments = {**recipe.model_arguments, "num_classes": len(class_names)}
    if weights is not None:
        arguments |= {"weights": weights, "new_head": True}
    size = None if recipe.early_size else recipe.pixels.size
    model = create_model(
        recipe.model,
        input_shape=(size, size, 3),
        data_format="channels_last",
        dtype=recipe.dtype_policy,
        **arguments,
    )
    model.class_names, model.pixels = tuple(class_names), recipe.pixels
    return model


def freeze_blocks(model: keras.Model, blocks: int) -> None:
    """Keeps the weights of the embedding and of the first `blocks` blocks, their norms' statistics too."""
    known = len(model.blocks)
    if not isinstance(blocks, int) or not 0 <= blocks <= known:
        raise ValueError(f"freeze must be a number of blocks from 0 to {known}, got freeze={blocks!r}.")
    for layer in [model.embedding, *chain(*model.blocks[:blocks])] if blocks else ():
        layer.trainable = False


def compile_model(model: keras.Model, recipe: Recipe, batches_per_epoch: int) -> None:
    """Compiles the network with the optimiser and loss of a recipe."""
    # Where gradients are accumulated, Keras's schedules count batches, not steps.
    optimizer = OPTIMIZERS[recipe.optimizer](
        SCHEDULES[recipe.schedule](recipe.learning_rate, recipe.epochs, batches_per_epoch),
        weight_decay=recipe.weight_decay,
        epsilon=recipe.epsilon,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema or 0.99,
        gradient_accumulation_steps=recipe.accumulation if recipe.accumulation > 1 else None,
    )
    if not recipe.decay_all:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def take_averages(model: keras.Model) -> None:
    """Gives the network the averages of its weights, as copies: on JAX, evaluation deletes what it was given."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # inside float16's loss scaling
    for weight, average in zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True):
        weight.assign(keras.ops.convert_to_numpy(average))


class RestoreMetrics(keras.callbacks.Callback):
    """Lets the metrics of an epoch that was broken off go on from where they were."""

    def __init__(self, checkpoint: Checkpoint | None, position: Position) -> None:
        super().__init__()
        self.checkpoint, self.position = checkpoint, position

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.position.step:  # TensorFlow has no metrics before it has seen a batch
            image, label = (
                np.zeros([1, *(size or 32 for size in shape[1:])], "float32")
                for shape in (self.model.input_shape, self.model.output_shape)
            )
            self.model.test_on_batch(image, label)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.position.step and epoch == self.position.epoch:
            self.checkpoint.restore_metrics(self.model)


@contextlib.contextmanager
def stopping_when_asked(checkpoints: Checkpoints) -> Iterator[None]:
    """Has a checkpoint written, and the process ended, where the system asks for it (SIGTERM) or the user (Ctrl-C)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(signal_number: int, frame: Any) -> None:
        checkpoints.stop_asked = signal_number
        signal.signal(signal_number, before[signal_number])  # asked again, the process ends at once

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(
    recipe: Recipe,
    model: keras.Model,
    found: dict[str, float],
    directory: Path,
    devices: Devices,
    start: dict[str, Any],
) -> Run:
    """Writes the trained network, its metrics and the curves.

    Args:
        recipe: what was carried out.
        model: the network.
        found: what `model.evaluate` gave.
        directory: where it is written.
        devices: what it was trained on.
        start: what it began with beside the recipe.
    """
    history = read_history(directory / "history.csv") if devices.writes else []
    metrics = {
        "test_accuracy": found["accuracy"],
        "test_loss": found["loss"],
        "params": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "seconds": sum(row["seconds"] for row in history),
        "devices": devices.share.devices,
        "processes": devices.share.processes,
        "machine": asdict(describe_environment()),
        "recipe": recipe.to_json(),
        "start": start,
        "history": history,
    }
    if not devices.writes:
        return Run(model, history, metrics, directory)
    save_model(model, directory / "model.keras")
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if find_spec("matplotlib"):
        from keras_mixers.visualize import training_curves

        training_curves(history, save=directory / "curves.png")
    return Run(model, history, metrics, directory)
