"""What the backend computes on."""

import keras
from keras import ops


def device() -> str:
    """Returns the kind of device on which the backend computes: `"cpu"`, `"gpu"` or another that it names."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    place = ops.convert_to_tensor(0.0).device.type  # which KERAS_TORCH_DEVICE and keras.device choose
    return "gpu" if place == "cuda" else place
