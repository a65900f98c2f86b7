"""What a benchmark asks of each subject."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_mixers.layers.validation import DTYPE_POLICIES, check_choice, check_positive_int
from keras_mixers.models import create_model, get_preset
from keras_mixers.profiling.without_values import without_values

MODES = ("inference", "training")
PRECISIONS = tuple(DTYPE_POLICIES)


@dataclass(frozen=True)
class Task:
    """What each subject does: run or train a model of the table on a batch of images."""

    model: str
    mode: str
    batch: int
    image_size: int
    precision: str


def make_tasks(
    models: Sequence[str], *, batch: Sequence[int], image_size: int | None, precision: str, modes: Sequence[str]
) -> list[Task]:
    """Returns the tasks that the arguments of `benchmark` describe, once all of them are checked."""
    check_choice("precision", precision, PRECISIONS)
    modes = [check_choice("modes", mode, MODES) for mode in modes]
    batch = [check_positive_int("batch", size) for size in batch]
    if image_size is not None:
        check_positive_int("image_size", image_size)
    sizes = {name: image_size or get_preset(name).pixels.size for name in models}
    for name, size in sizes.items():
        without_values(create_model, name, input_shape=(size, size, 3), data_format="channels_last")
    tasks = [Task(name, mode, n, sizes[name], precision) for name in sizes for mode in modes for n in batch]
    if not tasks:
        raise ValueError(
            f"models, modes and batch must name at least one each, got models={list(models)}, modes={modes}, "
            f"batch={batch}."
        )
    return tasks
