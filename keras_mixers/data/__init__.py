"""Images from TFDS and from folders, as `tf.data` batches for every Keras backend."""

from typing import Any

from keras_mixers.data.augmentation_settings import Augmentation
from keras_mixers.models.datasets import DATASETS, Dataset

try:
    from keras_mixers.data import startup  # noqa: F401  # isort: split
    from keras_mixers.data.batches import eval_batches, train_batches
    from keras_mixers.data.shard import DataShard
    from keras_mixers.data.sources import Images, load_folder, load_folders, load_tfds
except ImportError as error:  # recipes can be read all the same
    _missing = error

    def __getattr__(name: str) -> Any:
        if name in __all__:
            raise _missing
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DATASETS",
    "Augmentation",
    "DataShard",
    "Dataset",
    "Images",
    "eval_batches",
    "load_folder",
    "load_folders",
    "load_tfds",
    "train_batches",
]
