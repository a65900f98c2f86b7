"""Muon for the kernels of a mixer, the papers' AdamW for everything else."""

from typing import Any

import keras
from keras import ops

from keras_mixers.layers.validation import check_keras
from keras_mixers.optimizers.adamw import PyTorchsAdam


@keras.saving.register_keras_serializable(package="keras_mixers")
class Muon(PyTorchsAdam, keras.optimizers.Muon):
    """Keras's Muon for all kernels but the head's, AdamW for the rest.

    The momentum of a kernel, as a matrix M = U S Vᵀ, is replaced by about U Vᵀ: all of its directions are learnt
    at the same rate: `w ← w (1 - η λ) - η · 0.2 · √max(n, m) · UVᵀ`. The matrix of a pointwise convolution has inputs
    as rows and outputs as columns, those of patch embedding and depthwise convolutions the positions (and colours) of a
    patch or kernel as rows and the channels as columns; Keras's own Muon leaves these to AdamW, which costs mixers most
    of its gain (docs/training.md). Biases, norms and the head get AdamW's step with the same η and λ.

    Args:
        learning_rate: η, a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: λ, of all weights.
        epsilon: ε of AdamW.
        **kwargs: further arguments of `keras.optimizers.Muon`, such as `global_clipnorm`.

    Raises:
        ValueError: if epsilon is not positive.
        ImportError: if Keras is older than 3.13.

    Example:
        >>> optimizer = Muon(learning_rate=0.05, weight_decay=0.005, global_clipnorm=1.0)
        >>> optimizer.exclude_layers
        ['head']
    """

    def __init__(
        self, learning_rate: Any = 0.05, weight_decay: float = 0.005, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        check_keras("Muon", (3, 13))
        kwargs.setdefault("name", "muon")
        kwargs.setdefault("exclude_layers", ["head"])
        kwargs["adam_weight_decay"] = weight_decay
        kwargs["exclude_embeddings"] = False  # a patch embedding is a convolution
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, epsilon=epsilon, **kwargs)

    @property
    def _beta_2(self) -> float:
        return self.adam_beta_2

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4 and super()._should_use_adamw(variable)

    def _muon_update_step(self, gradient: Any, variable: keras.Variable, lr: Any, m: keras.Variable) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        *_, inputs, outputs = variable.shape
        channels = inputs if outputs == 1 else outputs  # a depthwise kernel has one output for each channel
        g = ops.reshape(ops.add(gradient, self.momentum * m), (-1, channels))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(g, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))

    def get_config(self) -> dict[str, Any]:
        own = ("adam_weight_decay", "exclude_embeddings")
        return {name: value for name, value in super().get_config().items() if name not in own}
