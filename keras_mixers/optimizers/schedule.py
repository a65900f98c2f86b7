"""The learning rate: that of both papers, and the cosine with which others train."""

from itertools import pairwise
from typing import Any

import keras
from keras import ops

from keras_mixers.layers.validation import check_positive, check_positive_int


@keras.saving.register_keras_serializable(package="keras_mixers")
class TriangularSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to a maximum, falls to a twentieth of it, then to zero, linearly and at every step.

    With E epochs, step s (counted from 0) stands at `t = (s + 1) / steps_per_epoch` epochs, and its learning rate is
    `np.interp(t, [0, 2E // 5, 4E // 5, E], [0, max, max / 20, 0])`.

    Args:
        max_learning_rate: the maximum, reached after two fifths of the epochs.
        epochs: number of epochs, E.
        steps_per_epoch: number of optimiser steps in an epoch; the last, incomplete batch counts as one.

    Raises:
        ValueError: if the maximum is not positive, or epochs or steps are not whole numbers of at least 1.

    Example:
        >>> schedule = TriangularSchedule(0.05, epochs=25, steps_per_epoch=98)
        >>> round(float(schedule(980 - 1)), 6)
        0.05
    """

    def __init__(self, max_learning_rate: float, epochs: int, steps_per_epoch: int) -> None:
        self.max_learning_rate = check_positive("max_learning_rate", max_learning_rate)
        self.epochs = check_positive_int("epochs", epochs)
        self.steps_per_epoch = check_positive_int("steps_per_epoch", steps_per_epoch)

    def __call__(self, step: Any) -> Any:
        t = (ops.cast(step, "float32") + 1) / self.steps_per_epoch
        times = (0, 2 * self.epochs // 5, 4 * self.epochs // 5, self.epochs)
        rates = (0.0, self.max_learning_rate, self.max_learning_rate / 20, 0.0)
        learning_rate = ops.zeros_like(t)
        for (start, low), (stop, high) in pairwise(zip(times, rates, strict=True)):
            if start < stop:  # under 5 epochs some of the corners fall together
                line = low + (high - low) * (t - start) / (stop - start)
                learning_rate = ops.where((t >= start) & (t < stop), line, learning_rate)
        return learning_rate

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("max_learning_rate", "epochs", "steps_per_epoch")}


def warmup_cosine(
    max_learning_rate: float, epochs: int, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns Keras's cosine, which falls to zero after it has risen to the maximum for a twentieth of all steps."""
    steps = epochs * steps_per_epoch
    warmup_steps = max(steps // 20, 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup_steps, warmup_target=max_learning_rate, warmup_steps=warmup_steps
    )


# By the name that a recipe has for it: a function of the maximum, the epochs and the steps of an epoch.
SCHEDULES = {"triangular": TriangularSchedule, "cosine": warmup_cosine}
