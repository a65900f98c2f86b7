"""Muon for the kernels that are matrices, the papers' AdamW for everything else."""

from typing import Any

import keras
from keras import ops

from keras_mixers.layers.validation import check_keras, check_positive


@keras.saving.register_keras_serializable(package="keras_mixers")
class Muon(keras.optimizers.Muon):
    """Keras's Muon for pointwise kernels, AdamW for the rest, with the head among the rest.

    The momentum of a kernel, a matrix M = U S Vᵀ, is replaced by about U Vᵀ, so that all of its directions are learnt
    at the same rate: `w ← w (1 - η λ) - η · 0.2 · √max(n, m) · UVᵀ`. Biases, norms and the head get AdamW's step with
    the same learning rate η and weight decay λ.

    Args:
        learning_rate: η, a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: λ, of all weights.
        epsilon: ε of AdamW.
        flatten: whether the kernels of patch embedding and depthwise convolutions count as matrices too, with the
            positions of a patch or kernel as rows.
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
        self,
        learning_rate: Any = 0.05,
        weight_decay: float = 0.005,
        epsilon: float = 1e-8,
        flatten: bool = False,
        **kwargs: Any,
    ) -> None:
        check_keras("Muon", (3, 13))
        kwargs.setdefault("name", "muon")
        kwargs.setdefault("exclude_layers", ["head"])
        kwargs["adam_weight_decay"] = weight_decay
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epsilon=check_positive("epsilon", epsilon),
            exclude_embeddings=False,  # a patch embedding is a convolution
            **kwargs,
        )
        self.flatten = flatten

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        if self.flatten and len(variable.shape) == 4:
            return False
        return super()._should_use_adamw(variable)

    def _muon_update_step(self, gradient: Any, variable: keras.Variable, lr: Any, m: keras.Variable) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        g = ops.add(gradient, self.momentum * m)
        if len(variable.shape) == 4:
            g = ops.reshape(g, (-1, max(variable.shape[-2:])))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(g, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("adam_weight_decay", "exclude_embeddings"):
            del config[name]
        return {**config, "flatten": self.flatten}
