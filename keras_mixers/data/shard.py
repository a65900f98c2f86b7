"""Each of several processes reads its own part of every batch."""

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class DataShard:
    """What one process reads of the batches that all processes compute together.

    An epoch's order is the same in all of them, and each takes equal, consecutive parts of its batches. So that all
    devices get equally many examples, the last batch is filled up with the epoch's first, at most devices - 1.

    Args:
        process: number of this process, from 0.
        processes: number of processes.
        devices: number of devices of all processes together, which divides the batch size.

    Example:
        >>> share = DataShard(process=1, processes=2, devices=2)
        >>> examples = share.filled(tf.data.Dataset.range(7), 7)
        >>> [part.numpy().tolist() for part in share.part(examples, 7, batch_size=4).batch(2)]
        [[2, 3], [6, 0]]
    """

    process: int = 0
    processes: int = 1
    devices: int = 1

    def padding(self, count: int) -> int:
        """Number of examples that fill up the last batch of an epoch of `count`."""
        return -count % self.devices

    def filled(self, dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
        """An epoch of `count` examples, whose last batch all devices can share."""
        if not (padding := self.padding(count)):
            return dataset
        # Not dataset.repeat(): TensorFlow joins it with a shuffle before it, and the epoch has no end.
        again = tf.data.Dataset.range(padding).flat_map(lambda _: dataset)
        return dataset.concatenate(again.take(padding))

    def part(self, dataset: tf.data.Dataset, count: int, batch_size: int) -> tf.data.Dataset:
        """What this process reads of a filled epoch: of each batch of `batch_size`, one part."""
        if self.processes == 1:
            return dataset
        filled = count + self.padding(count)

        def is_own(i: tf.Tensor, _: Any) -> tf.Tensor:
            first = i - i % batch_size
            size = tf.minimum(tf.cast(batch_size, tf.int64), filled - first)
            return (i - first) * self.processes // size == self.process

        return dataset.enumerate().filter(is_own).map(lambda _, *rest: rest[0] if len(rest) == 1 else rest)


ALONE = DataShard()
