"""A recipe is carried out in three steps: prepare, train, report."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_mixers import backends
from keras_mixers.data import Images
from keras_mixers.training.devices import find_devices
from keras_mixers.training.folder import RunFolder, choose_precision, naming_full_disk
from keras_mixers.training.loop import train
from keras_mixers.training.prepare import check_sizes, load_images, prepare
from keras_mixers.training.recipe import Recipe
from keras_mixers.training.recipes import get_recipe
from keras_mixers.training.report import Run, report


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
        download: whether TFDS fetches a data set that is not there.
        train_images: images to train on, in the place of the recipe's data set.
        test_images: images to evaluate after each epoch, likewise.
        weights: trained weights to start from, with a new head: whatever `weights=` of a network takes.
        freeze: number of blocks, from the first, whose weights stay as they are, and the embedding's too; 0 for none.
        resume: whether to resume the run that this folder holds, with the same recipe, images, `weights` and `freeze`;
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
    backends.keep_memory()  # before JAX starts its threads
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    devices, directory = find_devices(devices), Path(output_dir)
    recipe = choose_precision(recipe, directory, resume)
    check_sizes(recipe)
    folder = RunFolder(directory, recipe, resume) if devices.writes else contextlib.nullcontext()
    with devices.naming_lost_processes(), naming_full_disk(directory), folder, devices.scope():
        images = load_images(recipe, data_dir, download, train_images, test_images, bool(verbose))
        run = prepare(recipe, devices, directory, images, weights, freeze, resume)  # nothing is written yet
        if devices.writes:
            folder.open()
        train(run, checkpoint_minutes, callbacks, bool(verbose))
        return report(run)
