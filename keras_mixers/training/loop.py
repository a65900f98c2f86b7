"""The epochs of a run: one call of `model.fit` where nothing changes between them."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import keras

from keras_mixers.data import train_batches
from keras_mixers.environment import describe_environment
from keras_mixers.training.callbacks import Checkpoints, KeepBest, KeepWeights, RestoreMetrics
from keras_mixers.training.checkpoints import Position
from keras_mixers.training.history import HistoryWriter
from keras_mixers.training.prepare import Prepared
from keras_mixers.training.progress import Progress


def train(
    run: Prepared,
    checkpoint_minutes: float = 15,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool = False,
) -> None:
    """Trains a network from where it stands to its last epoch, as `fit` explains."""
    recipe, devices, model, position = run.recipe, run.devices, run.model, run.position
    checkpoints = Checkpoints(
        run.directory / "checkpoints", run.notes, position, checkpoint_minutes, devices.writes, devices.within_epochs
    )
    watching = [KeepBest(run.directory / "best.keras", run.notes, devices.writes)]
    if recipe.ema:
        watching.append(keras.callbacks.SwapEMAWeights())
    if devices.writes:
        watching.append(HistoryWriter(run.directory / "history.csv", first_epoch=position.epoch))
    if devices.writes and verbose:
        images, batches = run.train_images.count, run.batches_per_epoch
        watching.append(Progress(images, batches, recipe.epochs, position, devices.within_epochs))
        if position.epoch < recipe.epochs:
            print(first_line(run), file=sys.stderr, flush=True)

    with checkpoints.stopping_when_asked():
        while position.epoch < recipe.epochs:
            epochs, size = next_epochs(run, position)
            resumed = [RestoreMetrics(run.checkpoint)] if position.step else []
            kept = [KeepWeights()] if recipe.ema else []
            batches = train_batches(
                run.train_images,
                run.batch_size,
                replace(recipe.pixels, size=size),
                augmentation=recipe.augmentation,
                seed=recipe.seed,
                epochs=epochs,
                first_batch=position.step,
                share=devices.share,
            )
            model.fit(
                devices.distributed(batches),
                validation_data=run.test,
                validation_steps=run.test_steps,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                steps_per_epoch=run.batches_per_epoch - position.step,
                callbacks=[*resumed, *watching, checkpoints, *kept, *callbacks],
                shuffle=False,  # train_batches has shuffled them; Keras would warn that it cannot
                verbose=0,
            )
            position = Position(epochs.stop)
            for weights in kept:
                weights.put_back()
    if recipe.ema:
        take_averages(model)


def next_epochs(run: Prepared, position: Position) -> tuple[range, int]:
    """Returns the epochs of the next call of `model.fit`, and the size of their images in pixels."""
    recipe = run.recipe
    # The rest of an interrupted epoch has fewer batches than the others, hence its own call.
    stop = position.epoch + 1 if position.step else recipe.epochs
    half = recipe.epochs // 2
    if recipe.early_size and position.epoch < half:
        return range(position.epoch, min(stop, half)), recipe.early_size
    return range(position.epoch, stop), recipe.pixels.size


def first_line(run: Prepared) -> str:
    """Returns what is shown before the first batch: what is trained on, by what, and where the files go."""
    environment, devices, position = describe_environment(), run.devices.share.devices, run.position
    several = f"{devices} x " if devices > 1 else ""
    resumed = f", from epoch {position.epoch + 1}, batch {position.step + 1}" if position != Position() else ""
    return (
        f"{run.train_images.count:,} images of {run.train_images.num_classes} classes, {run.test_images.count:,} to "
        f"test on; {environment.backend} on {several}{environment.gpu or environment.cpu}; {run.directory}{resumed}"
    )


def take_averages(model: keras.Model) -> None:
    """Gives the network the averages of its weights, as copies: on JAX, evaluation deletes what it was given."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # inside float16's loss scaling
    for weight, average in zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True):
        weight.assign(keras.ops.convert_to_numpy(average))
