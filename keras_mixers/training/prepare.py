"""What a run needs before its first batch: images, network, optimiser, and where it is resumed. Nothing is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.data import Images, eval_batches, load_tfds
from keras_mixers.models import ImageSpec, create_model
from keras_mixers.optimizers import OPTIMIZERS, SCHEDULES
from keras_mixers.training.checkpoints import Checkpoint, Position, last_checkpoint
from keras_mixers.training.devices import Devices
from keras_mixers.training.folder import check_same_start
from keras_mixers.training.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """A run before its first batch.

    Attributes:
        batch_size: number of images that all devices together take at once.
        model: the network, compiled, with the values of the checkpoint if the run is resumed.
        test: the test batches, and in `test_steps` what `model.fit` is told of their number.
        checkpoint: where the run is resumed; None for a new one.
        notes: what its checkpoints keep beside variables: the best accuracy so far, and what the run began with.
    """

    recipe: Recipe
    devices: Devices
    directory: Path
    train_images: Images
    test_images: Images
    batch_size: int
    model: keras.Model
    test: Any
    test_steps: int | None
    checkpoint: Checkpoint | None
    notes: dict[str, Any]

    @property
    def position(self) -> Position:
        """Where the run begins."""
        return self.checkpoint.position if self.checkpoint else Position()

    @property
    def batches_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        return math.ceil(self.train_images.count / self.batch_size)


def prepare(
    recipe: Recipe,
    devices: Devices,
    directory: Path,
    images: tuple[Images, Images],
    weights: str | Path | None = None,
    freeze: int = 0,
    resume: bool = False,
) -> Prepared:
    """Makes everything that `train` needs, as `fit` explains; to be called in the scope of the devices."""
    train_images, test_images = images
    batch_size = shared_batch_size(recipe, devices)
    start = start_of(train_images, test_images, weights, freeze)
    notes = {"best": None, "start": start}
    checkpoint = last_checkpoint(directory / "checkpoints") if resume else None
    if resume:
        devices.check_agreement(
            "checkpoints (epoch, step)",
            (checkpoint.position.epoch, checkpoint.position.step) if checkpoint else (0, 0),
            f"output_dir={str(directory)!r} must be one folder that all of them reach, and resume the same in all",
        )
    if checkpoint is not None:
        check_same_start(directory, checkpoint.notes.get("start"), start)
        notes |= checkpoint.notes

    keras.utils.set_random_seed(recipe.seed)
    model = make_model(recipe, train_images.class_names, weights)
    if recipe.whitening:
        whiten_patches(model, train_images, recipe.pixels, recipe.seed)
    known = len(model.blocks)
    if not isinstance(freeze, int) or not 0 <= freeze <= known:
        raise ValueError(f"freeze must be a number of blocks from 0 to {known}, got freeze={freeze!r}.")
    for layer in [model.embedding, *chain(*model.blocks[:freeze])] if freeze else ():
        layer.trainable = False  # the statistics of their norms stay, too
    compile_model(model, recipe, math.ceil(train_images.count / batch_size))
    devices.prepare(model)
    if checkpoint is not None:
        checkpoint.restore(model)

    test, test_steps = devices.repeated(eval_batches(test_images, batch_size, recipe.pixels, share=devices.share))
    return Prepared(
        recipe, devices, directory, train_images, test_images, batch_size, model, test, test_steps, checkpoint, notes
    )


def start_of(
    train_images: Images, test_images: Images, weights: str | Path | None = None, freeze: int = 0
) -> dict[str, Any]:
    """Returns what a run begins with beside its recipe, as `check_same_start` compares it."""
    return {
        "class_names": list(train_images.class_names),
        "train_images": {"count": train_images.count, **train_images.origin},
        "test_images": {"count": test_images.count, **test_images.origin},
        "weights": None if weights is None else str(weights),
        "freeze": freeze,
    }


def shared_batch_size(recipe: Recipe, devices: Devices) -> int:
    """Returns how many images all devices together take at once."""
    batch_size = recipe.batch_size // recipe.accumulation
    if batch_size % devices.share.devices:
        accumulated = f" / accumulation={recipe.accumulation}" if recipe.accumulation > 1 else ""
        got = f"batch_size={recipe.batch_size}{accumulated}; choose a multiple, or fewer devices."
        raise ValueError(f"The {devices.share.devices} devices must share a batch equally, got {got}")
    if recipe.accumulation > 1 and not devices.accumulates:
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


def load_images(
    recipe: Recipe,
    data_dir: str | Path | None,
    download: bool,
    train_images: Images | None,
    test_images: Images | None,
    verbose: bool,
) -> tuple[Images, Images]:
    """Returns the images of a recipe, or those given in their place."""
    if (train_images is None) != (test_images is None):
        raise ValueError("train_images and test_images must be given together, got only one of them.")
    if train_images is None:
        if recipe.dataset == "folder":
            advice = "name their folder with --images, or in Python give train_images and test_images"
            raise ValueError(f"The recipe is for images of your own: {advice}.")
        train_images, test_images = (
            load_tfds(recipe.dataset, split, data_dir, download, limit, verbose)
            for split, limit in ((recipe.train_split, recipe.limit_train), (recipe.test_split, recipe.limit_test))
        )
    if train_images.class_names != test_images.class_names:
        counts = f"{len(train_images.class_names)} and {len(test_images.class_names)} with other names"
        raise ValueError(
            f"Training and test images must have the same classes, got {counts}; look at the folders of both."
        )
    return train_images, test_images


def make_model(recipe: Recipe, class_names: Sequence[str], weights: str | Path | None = None) -> keras.Model:
    """Makes the network of a recipe, which knows its classes and pixels; its head is new if it starts from weights."""
    start = {} if weights is None else {"weights": weights, "new_head": True}
    size = recipe.pixels.size
    form = {"input_shape": (size, size, 3), "data_format": "channels_last", "dtype": recipe.dtype_policy}
    model = create_model(recipe.model, **{**recipe.model_arguments, "num_classes": len(class_names)}, **start, **form)
    model.class_names, model.pixels = tuple(class_names), recipe.pixels
    return model


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
    # Makes the variables of optimiser and metrics, which a checkpoint may restore; `fit` would do so with a batch.
    model._symbolic_build(data_batch=(model.input, model.output))


def whiten_patches(model: keras.Model, images: Images, pixels: ImageSpec, seed: int) -> None:
    """Sets the patch embedding of a network so that its channels are uncorrelated on `images`, with variance 1.

    With C = V diag(λ) Vᵀ the covariance of the patches, the kernel is R diag(1 / √(λ + ε)) Vᵀ, where the rows of R are
    random directions.

    Args:
        model: a network whose embedding is named `patch_embed`.
        images: those whose patches are whitened; the first 5,000 are looked at.
        pixels: how they are cut and normalised.
        seed: of the directions.
    """
    kernel, bias = model.get_layer("patch_embed").convolution.trainable_variables
    size, _, channels, dim = kernel.shape
    batch, _ = next(iter(eval_batches(images, 5_000, pixels)))
    height, width = (length // size for length in batch.shape[1:3])
    patches = np.reshape(batch[:, : height * size, : width * size], (-1, height, size, width, size, channels))
    patches = patches.swapaxes(2, 3).reshape(-1, size * size * channels)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    whitening = vectors / np.sqrt(values + 1e-3)  # (inputs, directions)
    directions = np.random.default_rng(seed).normal(size=(whitening.shape[1], dim))
    directions /= np.linalg.norm(directions, axis=0)
    weights = whitening @ directions
    kernel.assign(weights.reshape(kernel.shape))
    bias.assign(-patches.mean(0) @ weights)
