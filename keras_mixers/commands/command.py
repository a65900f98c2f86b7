"""What a command is, and how commands refuse."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras

from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models.image_spec import ImageSpec
from keras_mixers.models.presets import IMAGENET

MODEL_HELP = "a .keras file that train saved, or a network with its weights, such as splitmixer_i_256_8:cifar10"
FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit statuses; argparse, too, refuses arguments with 2
DEBUG_HELP = "show where in the program an error comes from"


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        help: one line that says what it does.
        add_arguments: adds its arguments to its parser.
        run: does it and returns an exit status, or raises what `main` turns into one.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def report_failure(reason: Exception | str, status: int = REFUSED) -> int:
    """Says why a command is not carried out, in one sentence, and returns `status`."""
    print(reason, file=sys.stderr)
    return status


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `load_model` reads: the file, and the images of a network that does not say which it takes."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    pixels = parser.add_argument_group("images of a network that does not say which it takes")
    pixels.add_argument("--size", type=whole_number, metavar="N", help="side in pixels (default: the input's)")
    for name, default in (("mean", IMAGENET.mean), ("std", IMAGENET.std)):
        colours = f"of the colours, for pixels from 0 to 1 (default: ImageNet's, {' '.join(map(str, default))})"
        pixels.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=colours)


def load_model(arguments: argparse.Namespace, needs_pixels: bool = True) -> keras.Model:
    """Reads the network of a command; where --size, --mean or --std is given, they say which images it takes."""
    from keras_mixers.inference import load_trained

    given = {name: getattr(arguments, name) for name in ("size", "mean", "std")}
    if all(value is None for value in given.values()):
        return load_trained(arguments.model, needs_pixels=needs_pixels)
    model = load_trained(arguments.model, needs_pixels=False)
    size = arguments.size or next((side for side in model.input_shape[2:0:-1] if side not in (None, 1, 3)), None)
    if size is None:
        raise ValueError(f"The network in {arguments.model!r} takes images of any size; say which with --size.")
    model.pixels = ImageSpec(size, tuple(arguments.mean or IMAGENET.mean), tuple(arguments.std or IMAGENET.std))
    return model


@contextlib.contextmanager
def ending_in_a_sentence(debug: bool = False) -> Iterator[None]:
    """Has what ends a program tell so in one sentence instead of a traceback.

    Args:
        debug: whether the traceback is shown all the same.

    Raises:
        SystemExit: with the exit status, once the sentence is written.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # such as of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes what is left
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        raise SystemExit(report_failure("Stopped.", INTERRUPTED)) from None
    except (ValueError, FileExistsError, FileNotFoundError, ImportError) as error:  # arguments, what is missing
        if debug:
            raise
        raise SystemExit(report_failure(error)) from error
    except (OSError, FloatingPointError, RuntimeError) as error:  # the disk, a loss that is not a number, a converter
        if debug:
            raise
        raise SystemExit(report_failure(error, FAILED)) from error


def whole_number(text: str) -> int:
    """Reads an argument that must be a whole number of at least 1."""
    try:
        return check_positive_int("value", int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}") from error


def number(text: str) -> float:
    """Reads an argument that must be a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value
