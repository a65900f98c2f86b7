"""Names the image that could not be read."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from keras_mixers.data.sources import Images

UNREADABLE = (tf.errors.InvalidArgumentError, tf.errors.NotFoundError)


@contextlib.contextmanager
def naming_damaged(*sources: Images) -> Iterator[None]:
    """Turns the error of a pipeline, which seldom names the file, into one sentence that does.

    Only once there is an error are the images read one by one.
    """
    try:
        yield
    except UNREADABLE as error:
        damaged = next((name for images in sources for name in _damaged(images)), None)
        if damaged is None:
            raise
        raise ValueError(f"{damaged} cannot be read: it is gone, no image, or damaged; replace it.") from error


def _damaged(images: Images) -> Iterator[str]:
    if images.decode is None:
        return
    decode = tf.function(images.decode)
    for i, (record, _) in enumerate(images.records):
        try:
            decode(record)
        except UNREADABLE as error:
            contents = record.numpy()
            is_path = isinstance(error, tf.errors.NotFoundError) or os.path.isfile(contents)
            yield f"The image {os.fsdecode(contents)!r}" if is_path else f"Image {i}"
