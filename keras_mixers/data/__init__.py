"""Images from TFDS and from folders, as `tf.data` batches for every Keras backend."""

from importlib import import_module
from typing import Any

from keras_mixers.data.augmentation_settings import Augmentation
from keras_mixers.data.datasets import DATASETS, Dataset, find_dataset

# These import TensorFlow: only once they are asked for.
_LATER = {
    "DataShard": "shard",
    "Images": "sources",
    "eval_batches": "batches",
    "load_folder": "sources",
    "load_folders": "sources",
    "load_tfds": "sources",
    "train_batches": "batches",
}

__all__ = ["DATASETS", "Augmentation", "Dataset", "find_dataset", *_LATER]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.startup")  # before TensorFlow runs
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
