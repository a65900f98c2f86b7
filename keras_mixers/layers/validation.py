"""Arguments are checked before any work is done, and each refusal is one sentence: argument, value, remedy."""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Sequence

import keras

DATA_FORMATS = ("channels_last", "channels_first")
# Keras's dtype policy for each precision that recipes and benchmarks take.
DTYPE_POLICIES = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


class ImageError(ValueError):
    """Images that a layer does not take; where it is called, Keras adds no lines to this one sentence."""

    _keras_call_info_injected = True


class UnknownLayerError(ValueError):
    """A network has a layer that cannot be written out in plain Keras layers, such as a mixer of the user's own."""


def lists_to_tuples(settings: object) -> None:
    """Makes tuples of the lists in a frozen dataclass, so that it equals what is read from JSON, and hashes."""
    for name, value in vars(settings).items():
        if isinstance(value, list):
            object.__setattr__(settings, name, tuple(value))


def check_positive_int(name: str, value: object) -> int:
    """Returns `value` as an int if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {name}={value!r}.")
    return int(value)


def check_positive(name: str, value: object) -> float:
    """Returns `value` as a float if it is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value > 0:
        raise ValueError(f"{name} must be a positive number, got {name}={value!r}.")
    return float(value)


def check_block(block: object) -> int:
    """Returns the index of a block, a whole number from 0."""
    if isinstance(block, bool) or not isinstance(block, numbers.Integral) or block < 0:
        raise ValueError(f"block must be the index of a block, a whole number of at least 0, got block={block!r}.")
    return int(block)


def check_rate(name: str, value: object) -> float:
    """Returns `value` as a float if it is a probability in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in [0, 1), got {name}={value!r}.")
    return float(value)


def check_ratio(ratio: object, above: float) -> float:
    """Returns the width of a segment as a fraction of the channels, if it lies in (above, 1]."""
    if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real) or not above < ratio <= 1:
        raise ValueError(
            f"ratio must be a number in ({above:.4g}, 1], the part of the channels that a segment takes, "
            f"got ratio={ratio!r}."
        )
    return float(ratio)


def check_colors(name: str, value: object, above: float = -math.inf) -> tuple[float, float, float]:
    """Returns `value` as three floats if it holds one finite number for each colour, and all lie above `above`."""
    numbers_only = isinstance(value, Sequence) and all(isinstance(number, numbers.Real) for number in value)
    if not numbers_only or len(value) != 3 or not all(math.isfinite(number) for number in value):
        raise ValueError(f"{name} must be three numbers, one for each colour, got {name}={value!r}.")
    if min(value) <= above:
        raise ValueError(f"{name} must be above {above:g} for each colour, got {name}={value!r}.")
    return tuple(float(number) for number in value)


def check_choice(name: str, value: object, choices: Sequence[object]) -> object:
    """Returns `value` if it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {name}={value!r}.")
    return value


def did_you_mean(name: object, known: Iterable[str], prefix: str = "", count: int = 3) -> str:
    """Returns the end of a refusal: the `count` nearest of the known names, after `prefix`, or all if none is near.

    Example:
        >>> did_you_mean("epoch", ["epochs", "seed"])
        "did you mean 'epochs'?"
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=count, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(repr(prefix + other) for other in near)}?"
    return f"there are {', '.join(prefix + other for other in known)}."


def check_activation(activation: str | Callable | None) -> Callable:
    """Returns the Keras activation that `activation` names."""
    try:
        return keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"activation must be the name of a Keras activation such as 'gelu' or 'relu', a function or None, "
            f"got activation={activation!r}."
        ) from error


def check_data_format(data_format: str | None) -> str:
    """Returns `data_format`, or Keras's setting where it is None."""
    return check_choice("data_format", data_format or keras.config.image_data_format(), DATA_FORMATS)


def check_image_batch(layer: str, shape: Sequence[int | None], channel_axis: int) -> None:
    """Refuses a shape that is not a batch of images with a known number of channels."""
    if len(shape) != 4:
        raise ImageError(
            f"{layer} takes a batch of images, a tensor of rank 4, got shape {tuple(shape)}; "
            "a single image needs a batch axis in front."
        )
    if shape[channel_axis] is None:
        raise ImageError(f"{layer} needs a known number of channels, got shape {tuple(shape)}; name it in input_shape.")


def check_keras(feature: str, oldest: tuple[int, int]) -> None:
    """Refuses a feature, by an ImportError, where Keras is older than the version `oldest`, (major, minor)."""
    if tuple(map(int, keras.__version__.split(".")[:2])) < oldest:
        raise ImportError(
            f"{feature} needs Keras {oldest[0]}.{oldest[1]} or newer, got {keras.__version__}: pip install -U keras."
        )
