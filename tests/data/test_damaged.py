"""An image that cannot be read is named, whichever way it comes; other errors stay as they are."""

import numpy as np
import pytest
import tensorflow as tf
from drawn_images import write_class_folders

from keras_mixers.data import Images, load_folder
from keras_mixers.data.damaged import naming_damaged

pytestmark = pytest.mark.backend_independent


def read(images):
    with naming_damaged(images):
        return list(images.examples)


def spoil_the_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_the_middle,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["in the middle", "cut", "empty", "gone"],
)
def test_names_the_file(spoil, tmp_path):
    images = load_folder(write_class_folders(tmp_path, 6, 20))
    assert len(read(images)) == 6
    path = tmp_path / "green" / "004.png"
    spoil(path)
    with pytest.raises(ValueError, match=rf"^The image '{path}' cannot be read: it is gone, no image, or damaged; rep"):
        read(images)


def test_counts_images_that_are_no_files():
    image = tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy()
    records = tf.data.Dataset.from_tensor_slices(([image, image, image[:-20]], [0, 0, 0]))
    with pytest.raises(ValueError, match=r"^Image 2 cannot be read: "):
        read(Images(records, 3, ("cat",), decode=tf.io.decode_png))


@pytest.mark.parametrize("decode", [None, lambda image: image])
def test_leaves_errors_as_they_are_where_every_image_can_be_read(decode):
    images = Images(tf.data.Dataset.from_tensor_slices((np.zeros((2, 4, 4, 3), "uint8"), [0, 0])), 2, ("cat",), decode)
    with pytest.raises(tf.errors.InvalidArgumentError, match="something else"), naming_damaged(images):
        raise tf.errors.InvalidArgumentError(None, None, "something else")
    with pytest.raises(KeyError), naming_damaged(images):
        raise KeyError
