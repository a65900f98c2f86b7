"""Images from TFDS and from folders, as `tf.data` batches for every Keras backend."""

from keras_mixers.data import startup  # noqa: F401  # isort: split
from keras_mixers.data.augmentation import Augmentation
from keras_mixers.data.batches import eval_batches, train_batches
from keras_mixers.data.share import Share
from keras_mixers.data.sources import Images, load_folder, load_folders, load_tfds

__all__ = [
    "Augmentation",
    "Images",
    "Share",
    "eval_batches",
    "load_folder",
    "load_folders",
    "load_tfds",
    "train_batches",
]
