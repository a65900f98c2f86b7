"""The optimiser of both papers."""

from typing import Any

import keras
from keras import ops

from keras_mixers import backends
from keras_mixers.layers.validation import check_positive


class PyTorchsAdam:
    """What both optimisers do as PyTorch does: ε is added to the corrected √v̂, and the whole batch is clipped."""

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        return backends.clip_whole_batch(super()._clip_gradients, grads) if clips else grads

    @property
    def _beta_2(self) -> float:
        return self.beta_2

    @property
    def epsilon(self) -> Any:
        """What Keras is to add to √v: ε · √(1 - β₂ᵗ)."""
        step = ops.cast(self.iterations + 1, "float32")
        return self._epsilon * ops.sqrt(1 - ops.power(self._beta_2, step))

    @epsilon.setter
    def epsilon(self, epsilon: float) -> None:
        self._epsilon = check_positive("epsilon", epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self._epsilon}


@keras.saving.register_keras_serializable(package="keras_mixers")
class AdamW(PyTorchsAdam, backends.adamw()):
    """Keras's AdamW with epsilon where PyTorch and the Adam paper's algorithm have it, and PyTorch's default of 1e-8.

    With m and v the moving averages of a gradient and of its square, step t at learning rate η changes a weight by
    `-η · m̂ / (√v̂ + ε)`, with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ). Keras adds ε to √v before v is corrected, where
    it weighs 32 times as much in the first step and 1.6 times after 500. The weight decay λ comes before the change,
    `w ← w (1 - η λ)`, for every weight, biases and norms too.

    Args:
        learning_rate: η, a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: λ.
        epsilon: ε; the papers train with 1e-8 on CIFAR, ConvMixer with 1e-3 on ImageNet.
        **kwargs: further arguments of `keras.optimizers.AdamW`, such as `global_clipnorm`.

    Raises:
        ValueError: if epsilon is not positive.

    Example:
        >>> optimizer = AdamW(learning_rate=0.01, weight_decay=0.005, global_clipnorm=1.0)
        >>> optimizer.get_config()["epsilon"]
        1e-08
    """

    def __init__(
        self, learning_rate: Any = 0.001, weight_decay: float = 0.01, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        kwargs.setdefault("name", "adamw")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, epsilon=epsilon, **kwargs)
