"""Before TensorFlow runs, its packages must be there, and the GPUs are left to the backend that trains.

This happens on import: any `tf.data.Dataset` starts the GPUs, which can then no longer be hidden.
"""

import importlib.util
import warnings

from keras_mixers import backends


def require(*packages: str) -> None:
    """Raises an ImportError that names the remedy if one of the packages is not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f'keras_mixers.data needs {", ".join(missing)}: pip install "keras-mixers[train]" (any Keras backend)'
        )


def leave_gpus_to(backend: str) -> None:
    """Hides the GPUs from TensorFlow, which would fill their memory, unless it is the Keras backend."""
    import tensorflow as tf

    if backend == "tensorflow":
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        warnings.warn(
            f"TensorFlow started before keras_mixers.data was imported and may hold GPU memory that {backend} needs: "
            "import keras_mixers.data first, or set TF_FORCE_GPU_ALLOW_GROWTH=true.",
            stacklevel=2,
        )


require("tensorflow", "tensorflow_datasets", "importlib_resources")
leave_gpus_to(backends.NAME)
