"""Processes read every example of an epoch once between them, and each decodes only its own."""

import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise

from keras_mixers.data import Augmentation, DataShard, Images, eval_batches, train_batches
from keras_mixers.models import ImageSpec

pytestmark = pytest.mark.backend_independent

SPECS = {size: ImageSpec(size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)) for size in (6, 8)}


def shares(processes, devices):
    return [DataShard(process, processes, devices) for process in range(processes)]


def images_of(pixels, decode=None):
    labels = np.arange(len(pixels)) % 2
    return Images(tf.data.Dataset.from_tensor_slices((pixels, labels)), len(pixels), ("a", "b"), decode)


@pytest.mark.parametrize(
    ("count", "processes", "devices"), [(40, 2, 2), (40, 2, 4), (37, 4, 4), (5, 3, 12), (24, 1, 2)]
)
def test_parts_are_the_batches_of_one_process(count, processes, devices):
    """Part by part, they are the epoch, whose last batch is filled up with its first examples."""
    batch_size = 12
    parts = []
    for share in shares(processes, devices):
        own = share.part(share.filled(tf.data.Dataset.range(count), count), count, batch_size)
        parts.append([part.tolist() for part in own.batch(batch_size // processes).as_numpy_iterator()])
    batches = [sum(batch, []) for batch in zip(*parts, strict=True)]
    filled = [*range(count)] + [i % count for i in range(-count % devices)]
    assert batches == [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
    assert all(len(part) * processes % devices == 0 for own in parts for part in own)


@pytest.mark.parametrize("size", [8, 6])
def test_training_reads_every_image_once_and_decodes_its_own(size):
    decoded = []

    def decode(number):
        pixels = tf.numpy_function(
            lambda i: decoded.append(int(i)) or np.full((8, 8, 3), i, "uint8"), [number], "uint8"
        )
        return tf.ensure_shape(pixels, (8, 8, 3))

    images, read = images_of(np.arange(20), decode), []
    for share in shares(2, 2):
        decoded.clear()
        batches = train_batches(images, 8, SPECS[size], epochs=range(3), share=share, seed=1)
        firsts = [x[:, 0, 0, 0] for x, _ in batches.as_numpy_iterator()]
        seen = [np.round((first * 0.25 + 0.5) * 255).astype(int).tolist() for first in firsts]
        read.append(seen)
        assert sorted(decoded) == sorted(sum(seen, []))
        assert batches.cardinality() == len(seen) == 9
    for epoch in range(3):
        both = [number for own in read for batch in own[3 * epoch : 3 * epoch + 3] for number in batch]
        assert sorted(both) == [*range(20)]


def test_parts_are_what_one_process_gives():
    """Of another size: crops are drawn image by image."""
    images, crops = images_of(noise(10, 8)), Augmentation(crop_scale=(0.3, 1.0))
    whole, *parts = (
        train_batches(images, 4, SPECS[6], augmentation=crops, epochs=range(2), share=share).as_numpy_iterator()
        for share in (DataShard(), *shares(2, 2))
    )
    for (x, y), *own in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([part[0] for part in own]), x)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in own]), y)


def test_an_epoch_that_is_filled_up_reads_one_image_twice():
    images = images_of(noise(9, 8))
    parts = [[*train_batches(images, 4, SPECS[8], epochs=range(2), share=share)] for share in shares(2, 2)]
    assert [[len(x) for x, _ in own] for own in parts] == [[2, 2, 1, 2, 2, 1]] * 2
    for epoch in range(2):
        rows = np.concatenate([x for own in parts for x, _ in own[3 * epoch : 3 * epoch + 3]]).reshape(10, -1)
        assert len(np.unique(rows, axis=0)) == 9


def test_test_images_that_fill_up_weigh_nothing():
    images = images_of(noise(7, 8))
    whole = np.concatenate([x for x, _ in eval_batches(images, 4, SPECS[8])])
    rows = {"x": [], "weight": []}
    for share in shares(2, 2):
        batches = eval_batches(images, 4, SPECS[8], share=share)
        assert batches.cardinality() == 2
        for x, _, weight in batches:
            rows["x"] += [*x.numpy()]
            rows["weight"] += [*weight.numpy()]
    assert len(rows["x"]) == 8
    assert eval_batches(images, 4, SPECS[8], share=DataShard(devices=2)).cardinality() == 2
    np.testing.assert_allclose(np.mean(rows["weight"]), 1, rtol=1e-6)
    kept = np.array([x for x, weight in zip(rows["x"], rows["weight"], strict=True) if weight])
    np.testing.assert_array_equal(np.sort(kept.reshape(7, -1), axis=0), np.sort(whole.reshape(7, -1), axis=0))
