"""What the backend computes on."""

import keras


def device() -> str:
    """Returns the kind of device on which the backend computes: `"cpu"`, `"gpu"` or another that it names."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
