"""A recipe is carried out in three steps: prepare, train, report."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from keras_mixers import backends
from keras_mixers.data import Images, train_batches
from keras_mixers.environment import describe_environment
from keras_mixers.training.callbacks import Checkpoints, KeepBest, Progress, save_model
from keras_mixers.training.checkpoints import Position
from keras_mixers.training.curves import training_curves
from keras_mixers.training.devices import find_devices
from keras_mixers.training.folder import choose_precision, naming_full_disk, reserved
from keras_mixers.training.history import HistoryWriter, read_history
from keras_mixers.training.prepare import Prepared, check_sizes, load_images, prepare
from keras_mixers.training.recipe import Recipe
from keras_mixers.training.recipes import get_recipe


@dataclass(frozen=True)
class Run:
    """What a training run gave.

    Attributes:
        model: the trained network, with the averaged weights if the recipe has `ema`.
        history: one dictionary per epoch, as in history.csv; of several processes, the first has it.
        metrics: as in metrics.json: `"top1"`, the share of test images whose class is right, from 0 to 1, their mean
            cross-entropy `"loss"`, and what the run was.
        directory: where the files are.
        writes: whether it was this process, of several, that wrote them.
    """

    model: keras.Model
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    directory: Path
    writes: bool = True


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
    minutes. A run that was killed resumes from there with `resume`: the same curve as an unbroken one. SIGTERM and
    Ctrl-C write a checkpoint first. What fails before there is a checkpoint leaves nothing behind.

    Args:
        recipe: a `Recipe`, or the name of one of `RECIPES`.
        output_dir: the folder.
        data_dir: where TFDS keeps its data; its own folder by default.
        download: whether TFDS may fetch a data set that is not there.
        train_images: images to train on, in place of the recipe's data set.
        test_images: images to evaluate after each epoch, likewise.
        weights: trained weights to start from, with a new head: whatever `weights=` of a network takes.
        freeze: number of blocks, from the first, whose weights stay as they are, and the embedding's too; 0 for none.
        resume: whether to resume the run that this folder holds, with the same recipe, images, `weights` and `freeze`;
            without it a folder with a run is refused.
        checkpoint_minutes: time between checkpoints within an epoch.
        devices: how many of this machine's accelerators share each batch; all by default. Several processes call
            `join_processes` before.
        callbacks: further Keras callbacks, of each process.
        verbose: Keras's: 0 is silent, 1 shows a progress bar, 2 one line per epoch.

    Raises:
        ValueError: if there is no such recipe, the folder holds another run, another process trains in it, or the
            images have other classes than the test images.
        FileNotFoundError: if the data set is not there, and may not be fetched.
        OSError: if files cannot be written.
        FloatingPointError: if the loss becomes infinite or not a number.
        ConnectionError: if the data set cannot be fetched, or another process of the run has ended.
    """
    backends.keep_memory()  # before JAX or TensorFlow starts its threads
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    devices, directory = find_devices(devices), Path(output_dir)
    recipe = choose_precision(recipe, directory, resume)
    check_sizes(recipe)
    folder = reserved(directory, recipe, resume) if devices.writes else contextlib.nullcontext(lambda: None)
    with devices.naming_lost_processes(), naming_full_disk(directory), folder as make_folder, devices.scope():
        images = load_images(recipe, data_dir, download, train_images, test_images, bool(verbose))
        run = prepare(recipe, devices, directory, images, weights, freeze, resume)  # nothing is written yet
        make_folder()
        _train(run, checkpoint_minutes, callbacks, bool(verbose))
        return _report(run)


def _train(
    run: Prepared, checkpoint_minutes: float, callbacks: Sequence[keras.callbacks.Callback], verbose: bool
) -> None:
    recipe, devices, model, position = run.recipe, run.devices, run.model, run.position
    checkpoints = Checkpoints(run, checkpoint_minutes)
    watching = [KeepBest(run)]
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # inside float16's loss scaling
    if recipe.ema:
        watching.append(keras.callbacks.SwapEMAWeights())
        optimizer.finalize_variable_values = lambda _: None  # Keras would train the averages in the next model.fit
    if devices.writes:
        watching.append(HistoryWriter(run.directory / "history.csv", first_epoch=position.epoch))
    if devices.writes and verbose:
        watching.append(Progress(run))

    with checkpoints.stopping_when_asked():
        while position.epoch < recipe.epochs:
            # The rest of an interrupted epoch has fewer batches than the others, hence its own call.
            epochs = range(position.epoch, position.epoch + 1 if position.step else recipe.epochs)
            order = {"seed": recipe.seed, "epochs": epochs, "first_batch": position.step, "share": devices.share}
            batches = train_batches(
                run.train_images, run.batch_size, recipe.pixels, augmentation=recipe.augmentation, **order
            )
            model.fit(
                devices.distributed(batches),
                validation_data=run.test,
                validation_steps=run.test_steps,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                steps_per_epoch=run.batches_per_epoch - position.step,
                callbacks=[*watching, checkpoints, *callbacks],
                shuffle=False,  # train_batches has shuffled them; Keras would warn that it cannot
                verbose=0,
            )
            position = Position(epochs.stop)
    if recipe.ema:
        for weight, average in zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True):
            weight.assign(keras.ops.convert_to_numpy(average))  # a copy: on JAX, evaluation deletes what it was given


def _report(run: Prepared) -> Run:
    found = run.model.evaluate(run.test, steps=run.test_steps, verbose=0, return_dict=True)
    history = read_history(run.directory / "history.csv") if run.devices.writes else []
    metrics = {
        "top1": found["accuracy"],
        "loss": found["loss"],
        "params": sum(math.prod(weight.shape) for weight in run.model.trainable_weights),
        "seconds": sum(row["seconds"] for row in history),
        "devices": run.devices.share.devices,
        "processes": run.devices.share.processes,
        "machine": asdict(describe_environment()),
        "recipe": run.recipe.to_json(),
        "start": run.notes["start"],
        "history": history,
    }
    if run.devices.writes:
        save_model(run.model, run.directory / "model.keras")
        (run.directory / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        if find_spec("matplotlib"):
            training_curves(history, save=run.directory / "curves.png")
    return Run(run.model, history, metrics, run.directory, run.devices.writes)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Returns what a metrics.json holds, of version 0.1 too."""
    new_names = {"test_accuracy": "top1", "test_loss": "loss"}
    return {new_names.get(name, name): value for name, value in json.loads(Path(path).read_text()).items()}
