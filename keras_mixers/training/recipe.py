"""A recipe: everything that a training run is a function of."""

import ast
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from keras_mixers.data import Augmentation
from keras_mixers.layers.validation import (
    DTYPE_POLICIES,
    check_choice,
    check_positive,
    check_positive_int,
    did_you_mean,
)
from keras_mixers.models import ImageSpec, get_preset
from keras_mixers.models.datasets import find_dataset
from keras_mixers.models.isotropic import NetworkOptions
from keras_mixers.optimizers import OPTIMIZERS, SCHEDULES

SET_BY_FIT = {"input_shape", "preprocessing", "data_format", "dtype"}
WHOLE_NUMBERS = ("epochs", "batch_size", "accumulation", "limit_train", "limit_test")
POSITIVE_NUMBERS = ("learning_rate", "epsilon", "clip_norm")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run is a function of, beside the software and the hardware.

    Attributes:
        model: a network of the table, one of `keras_mixers.list_models()`.
        dataset: TFDS name of any data set with images and labels, such as `"cifar10"`; `"folder"` for your own images.
        pixels: size and statistics of the images, and how evaluation crops them.
        augmentation: what happens to the images in training; labels are smoothed and mixed there too.
        train_split: TFDS split to train on.
        test_split: TFDS split to evaluate after each epoch.
        limit_train: train on the first n images only; None for all.
        limit_test: likewise for the test images.
        model_arguments: arguments of the network that differ from the table's.
        epochs: number of epochs.
        batch_size: images of one step of the optimiser, on all devices together.
        accumulation: batches of which gradients are averaged for one step; each has batch_size / accumulation images.
        schedule: `"triangular"`, the papers', or `"cosine"`, which falls to zero after a twentieth of warming up.
        optimizer: `"adamw"`, the papers', or `"muon"`, for all kernels but the head's, with AdamW for the rest.
        learning_rate: the schedule's maximum.
        weight_decay: the optimiser's λ.
        decay_all: whether biases and norms decay too, as in the papers.
        epsilon: AdamW's ε.
        clip_norm: largest norm of the whole gradient; None for no limit.
        ema: momentum of a moving average of the weights, which is then what is evaluated and kept; None for none.
        whitening: whether the patch embedding starts as a whitening of the training images' patches.
        precision: `"float32"`, or `"float16"` (with loss scaling) or `"bfloat16"` with weights in float32; `"auto"`
            becomes the fastest of them when a run begins, as `keras_mixers.environment.fastest_precision` says.
        seed: of the initial weights, the order of the images and the augmentation.
        published: top-1 accuracy in percent that a paper reports for this run.
        source: where it does.

    Raises:
        ValueError: if a field has a value that is not allowed.

    Example:
        >>> from keras_mixers.training import get_recipe
        >>> recipe = get_recipe("cifar10_splitmixer_i").change({"epochs": "25", "augmentation.flip": "False"})
        >>> recipe.epochs, recipe.augmentation.flip, recipe.augmentation.rand_augment
        (25, False, (2, 12))
    """

    model: str
    dataset: str
    pixels: ImageSpec
    augmentation: Augmentation = field(default_factory=Augmentation)
    train_split: str = "train"
    test_split: str = "test"
    limit_train: int | None = None
    limit_test: int | None = None
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 100
    batch_size: int = 512
    accumulation: int = 1
    schedule: str = "triangular"
    optimizer: str = "adamw"
    learning_rate: float = 0.05
    weight_decay: float = 0.005
    decay_all: bool = True
    epsilon: float = 1e-8
    clip_norm: float | None = None
    ema: float | None = None
    whitening: bool = False
    precision: str = "float32"
    seed: int = 42
    published: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        get_preset(self.model)
        for names, check in ((WHOLE_NUMBERS, check_positive_int), (POSITIVE_NUMBERS, check_positive)):
            for name in names:
                if getattr(self, name) is not None or getattr(Recipe, name) is not None:  # None where it is the default
                    check(name, getattr(self, name))
        if not isinstance(self.weight_decay, int | float) or self.weight_decay < 0:
            raise ValueError(f"weight_decay must be a number of at least 0, got weight_decay={self.weight_decay!r}.")
        if self.ema is not None and not (isinstance(self.ema, float) and 0 < self.ema < 1):
            raise ValueError(f"ema must be a number in (0, 1), such as 0.999, or None, got ema={self.ema!r}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, got seed={self.seed!r}.")
        check_choice("schedule", self.schedule, tuple(SCHEDULES))
        check_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        check_choice("precision", self.precision, ("auto", *DTYPE_POLICIES))
        of_builder = inspect.signature(get_preset(self.model).builder).parameters.values()
        known = [each.name for each in of_builder if each.kind is not each.VAR_KEYWORD]
        known = [name for name in [*known, *NetworkOptions.__annotations__] if name not in SET_BY_FIT]
        for name in self.model_arguments:
            if name not in known:
                advice = did_you_mean(name, known, "model_arguments.", 1)
                raise ValueError(f"{self.model!r} has no argument {name!r} that a recipe may set; {advice}")
        if self.batch_size % self.accumulation:
            got = f"accumulation={self.accumulation} and batch_size={self.batch_size}"
            raise ValueError(f"accumulation must divide batch_size, got {got}.")

    @property
    def dtype_policy(self) -> str:
        """Keras's name of the precision."""
        return DTYPE_POLICIES[self.precision]

    def change(self, settings: Mapping[str, Any]) -> "Recipe":
        """Returns this recipe with some fields changed.

        Args:
            settings: new values by field; `augmentation.flip`, `pixels.size` and `model_arguments.dim` name parts of
                fields. A `dataset` of the table `keras_mixers.data.DATASETS` brings its splits and statistics along,
                which later settings may change. Text, as on a command line, is read as a Python literal if it is one.

        Raises:
            ValueError: if there is no such field (the message names the nearest), or a value is not allowed.
        """
        recipe = self
        for name, value in settings.items():
            row = find_dataset(value) if name == "dataset" else None
            if row is not None and row.tfds != recipe.dataset:
                pixels = replace(recipe.pixels, mean=row.pixels.mean, std=row.pixels.std)
                recipe = replace(recipe, pixels=pixels, train_split=row.train_split, test_split=row.test_split)
            recipe = _changed(recipe, name, row.tfds if row else _read(value), name)
        return recipe

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as values that JSON has."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe that `to_json` gave; a field that was removed since is left out where it was off."""
        kinds = {"pixels": ImageSpec, "augmentation": Augmentation}
        parts = {name: kind(**_known(kind, values[name])) for name, kind in kinds.items()}
        return cls(**{**_known(cls, values), **parts})


def _read(value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def _changed(part: Any, name: str, value: Any, whole_name: str) -> Any:
    """Returns a dataclass or mapping with `value` at the dotted `name`."""
    first, _, rest = name.partition(".")
    if isinstance(part, Mapping):
        return {**part, name: value}
    known = [field.name for field in fields(part)]
    if first not in known:
        outer = whole_name.removesuffix(name)
        raise ValueError(f"A recipe has no {whole_name!r}; {did_you_mean(first, known, outer, 1)}")
    if rest:
        inner = getattr(part, first)
        if not (is_dataclass(inner) or isinstance(inner, Mapping)):
            raise ValueError(f"{first!r} of a recipe has no parts, got {whole_name!r}; write {first}=VALUE.")
        value = _changed(inner, rest, value, whole_name)
    elif is_dataclass(getattr(part, first)) and not isinstance(value, type(getattr(part, first))):
        parts = ", ".join(f"{first}.{field.name}" for field in fields(getattr(part, first)))
        raise ValueError(f"{first!r} of a recipe is set part by part, got {value!r}; its parts are {parts}.")
    return replace(part, **{first: value})


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if value or name in names}
