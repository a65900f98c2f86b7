"""The devices, and the processes, that train one network: each computes its part of every batch.

On JAX and TensorFlow, by what these have for it: `keras.distribution.DataParallel` and `jax.distributed`,
`MirroredStrategy` and `MultiWorkerMirroredStrategy`. Gradients are averaged and norms see the whole batch, so that a
run does not depend on how many there are.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mixers.data import DataShard
from keras_mixers.training.processes import join_processes, multi_worker_strategy, task

# What JAX, TensorFlow, Gloo and NCCL write when a peer is gone; they share no class of exceptions.
LOST = re.compile(
    r"gloo|nccl|heartbeat|collective|unavailable|coordination service|socket closed|"
    r"connection (reset|refused|closed|aborted)",
    re.IGNORECASE,
)
ENGINES = {"jax", "jaxlib", "tensorflow"}  # whose exceptions these are
OWN_FAULTS = {"InvalidArgumentError", "NotFoundError", "ResourceExhaustedError"}  # such as an image that is damaged


@dataclass(frozen=True)
class Devices:
    """What a run is trained on.

    Attributes:
        share: the part of each batch that this process reads.
        local: number of devices of this process.
        scope: makes the context in which the network is made and trained.
        strategy: TensorFlow's, if it has more than one device.
    """

    share: DataShard = DataShard()
    local: int = 1
    scope: Callable[[], AbstractContextManager] = contextlib.nullcontext
    strategy: Any = None

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.share.process == 0

    @property
    def within_epochs(self) -> bool:
        """Whether that process can read the running metrics: TensorFlow sums those of all processes when it does."""
        return self.strategy is None or self.share.processes == 1

    def distributed(self, batches: Any) -> Any:
        """Returns the batches of this process as `model.fit` takes them here: on TensorFlow, one for each device."""
        if self.strategy is None:
            return batches
        import tensorflow as tf

        def parts(*batch):
            return tf.data.Dataset.from_tensor_slices(
                tuple(tf.reshape(part, (self.local, -1, *part.shape[1:])) for part in batch)
            )

        batches = batches.flat_map(parts) if self.local > 1 else batches
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def repeated(self, batches: Any) -> tuple[Any, int | None]:
        """Returns the test batches as `model.fit` takes them again and again, and the steps that it is to be told."""
        if self.strategy is None:
            return batches, None
        return self.distributed(batches.repeat()), int(batches.cardinality())

    def prepare(self, model: keras.Model) -> None:
        """Lets Keras's trainer work with several TensorFlow processes, where it fails in two places."""
        if self.strategy is None or self.share.processes == 1:
            return
        import tensorflow as tf

        def as_vectors(step):  # it averages what the processes give over an axis, which a number has none of
            return lambda data: {name: tf.reshape(value, (1,)) for name, value in step(data).items()}

        image, label = (tf.zeros((1, *shape[1:])) for shape in (model.input_shape, model.output_shape))
        model._symbolic_build(data_batch=(image, label))  # it would do so with a batch, which it cannot average
        model._maybe_symbolic_build = lambda **_: None
        model.train_step, model.test_step = as_vectors(model.train_step), as_vectors(model.test_step)

    def check_agreement(self, what: str, numbers: tuple[int, ...], advice: str) -> None:
        """Raises a ValueError, in all processes, if they do not have the same numbers."""
        if self.share.processes == 1:
            return
        if self.strategy is None:
            from jax.experimental.multihost_utils import process_allgather

            rows = np.asarray(process_allgather(np.array([numbers])))
        else:
            import tensorflow as tf

            own = self.strategy.run(lambda: tf.constant([numbers]))
            rows = self.strategy.gather(own, axis=0).numpy()
        found = sorted({tuple(map(int, row)) for row in rows.reshape(-1, len(numbers))})
        if len(found) > 1:
            raise ValueError(f"The processes of this run have different {what}, {found}; {advice}.")

    @contextlib.contextmanager
    def naming_lost_processes(self) -> Iterator[None]:
        """Has the loss of another process end this one with a sentence.

        Raises:
            ConnectionError: if another process has ended or cannot be reached.
        """
        try:
            yield
        except Exception as error:
            if self.share.processes == 1 or not _tells_of_lost_process(error):
                raise
            raise ConnectionError(
                f"Process {self.share.process} of {self.share.processes} lost another one, which has ended or cannot "
                "be reached (see what that one printed); start all of them again with resume=True (--resume)."
            ) from error


def _tells_of_lost_process(error: Exception) -> bool:
    """Whether an error of an engine says that it has lost another process."""
    kind = type(error)
    by_engine = kind.__module__.partition(".")[0] in ENGINES and kind.__name__ not in OWN_FAULTS
    return by_engine and LOST.search(str(error)) is not None


def find_devices(count: int | None = None) -> Devices:
    """Returns the devices that a run is trained on.

    Args:
        count: how many of this machine's accelerators (or CPU devices, where there are none); all by default.

    Raises:
        ValueError: if there are not so many, or the backend trains on one only.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        join_processes()
        if count not in (None, 1):
            raise ValueError(
                f"devices must be 1 on PyTorch, got devices={count}: Keras's trainer has no DistributedDataParallel; "
                "set KERAS_BACKEND to jax or tensorflow."
            )
        return Devices()
    return (_jax_devices if backend == "jax" else _tensorflow_devices)(count)


def _jax_devices(count: int | None) -> Devices:
    import jax

    process, processes, local = jax.process_index(), jax.process_count(), jax.local_device_count()
    names = keras.distribution.list_devices()
    if processes == 1:
        local = _checked(count, local)
        names = names[:local]
    elif count not in (None, local):
        raise ValueError(f"devices must be all {local} of each process where there are several, got devices={count}.")
    if len(names) == 1:
        return Devices()
    parallel = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    return Devices(DataShard(process, processes, len(names)), local, parallel.scope)


def _tensorflow_devices(count: int | None) -> Devices:
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        strategy = multi_worker_strategy()
        process, processes = task(strategy)
        devices = strategy.num_replicas_in_sync
        local = devices // processes
        if count not in (None, local):
            raise ValueError(
                f"devices must be all {local} of each process where there are several, got devices={count}."
            )
        return Devices(DataShard(process, processes, devices), local, strategy.scope, strategy)
    names = [d.name for d in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    count = _checked(count, len(names))
    if count == 1:
        return Devices()
    strategy = tf.distribute.MirroredStrategy(names[:count])
    return Devices(DataShard(devices=count), count, strategy.scope, strategy)


def _checked(count: int | None, available: int) -> int:
    if count is None:
        return available
    if not isinstance(count, int) or not 1 <= count <= available:
        raise ValueError(f"devices must be a whole number from 1 to {available}, as many as there are, got {count!r}.")
    return count
