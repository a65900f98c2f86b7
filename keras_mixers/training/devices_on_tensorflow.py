"""TensorFlow shares a run by `MirroredStrategy`, and between processes by `MultiWorkerMirroredStrategy`."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_mixers.data import DataShard
from keras_mixers.training.devices import Devices, check_count


@dataclass(frozen=True)
class TensorFlowDevices(Devices):
    """Devices under one of TensorFlow's strategies, where Keras cannot average gradients of several batches."""

    accumulates: bool = False
    strategy: tf.distribute.Strategy | None = None

    def distributed(self, batches: Any) -> Any:
        """Returns the batches of this process, split into one for each device."""

        def parts(*batch):
            return tf.data.Dataset.from_tensor_slices(
                tuple(tf.reshape(part, (self.local, -1, *part.shape[1:])) for part in batch)
            )

        batches = batches.flat_map(parts) if self.local > 1 else batches
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def repeated(self, batches: Any) -> tuple[Any, int | None]:
        return self.distributed(batches.repeat()), int(batches.cardinality())

    def prepare(self, model: keras.Model) -> None:
        """Lets Keras's trainer work with several processes, where it fails in two places."""
        if self.share.processes == 1:
            return

        def as_vectors(step):  # Keras averages the logs of processes over an axis, so scalars need one
            return lambda data: {name: tf.reshape(value, (1,)) for name, value in step(data).items()}

        model._maybe_symbolic_build = lambda **_: None  # it is built, and a batch cannot be averaged
        model.train_step, model.test_step = as_vectors(model.train_step), as_vectors(model.test_step)

    def gather(self, numbers: tuple[int, ...]) -> Any:
        own = self.strategy.run(lambda: tf.constant([numbers]))
        return self.strategy.gather(own, axis=0).numpy().reshape(-1, len(numbers))


def find_devices(count: int | None) -> Devices:
    """Returns the devices, as `devices.find_devices` explains."""
    if "TF_CONFIG" in os.environ:
        strategy = multi_worker_strategy()
        process, processes = task(strategy)
        devices = strategy.num_replicas_in_sync
        local = check_count(count, devices // processes, only_all=True)
        share, alone = DataShard(process, processes, devices), processes == 1
        # A metric that one process reads is summed over all, which would wait for it.
        reading = {"within_epochs": alone, "reads_alone": alone}
        return TensorFlowDevices(share, local, strategy.scope, **reading, strategy=strategy)
    names = [d.name for d in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    count = check_count(count, len(names))
    if count == 1:
        return Devices()
    strategy = tf.distribute.MirroredStrategy(names[:count])
    return TensorFlowDevices(DataShard(devices=count), count, strategy.scope, strategy=strategy)


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Joins the processes that TF_CONFIG describes."""
    if coordinator or processes:
        raise ValueError(
            "On TensorFlow, processes are described by the environment variable TF_CONFIG, not by coordinator, "
            "processes and process; see tensorflow.org/guide/distributed_training."
        )
    return task(multi_worker_strategy())[0] if "TF_CONFIG" in os.environ else 0


@functools.cache
def multi_worker_strategy() -> tf.distribute.Strategy:
    """Returns the one strategy of this process, as TF_CONFIG describes it."""
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"TF_CONFIG does not describe the processes of a run ({error}), got TF_CONFIG={os.environ['TF_CONFIG']!r}; "
            "see tensorflow.org/guide/distributed_training."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            "TF_CONFIG is set, but TensorFlow has computed something already; call "
            "keras_mixers.training.join_processes() first."
        ) from error


def task(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the number of this process and how many there are, as TF_CONFIG says: a chief comes before workers."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    before = chiefs if resolver.task_type == "worker" else 0
    return before + (resolver.task_id or 0), max(chiefs + workers, 1)
