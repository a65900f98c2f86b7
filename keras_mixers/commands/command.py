"""What commands share: how they read a network, and how they refuse."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_mixers.layers.validation import check_positive, check_positive_int
from keras_mixers.models.image_spec import ImageSpec
from keras_mixers.models.presets import IMAGENET

FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit statuses; argparse, too, refuses arguments with 2
REFUSALS = (ValueError, FileExistsError, FileNotFoundError, ImportError)  # bad arguments, missing files or packages
DEBUG_HELP = "show where in the program an error comes from"


@dataclass(frozen=True)
class Command:
    """A subcommand: `run` returns its exit status, or raises what `ending_in_a_sentence` turns into one."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def report_failure(reason: Exception | str, status: int) -> int:
    """Says in one sentence why a command has stopped, and returns `status`."""
    print(reason, file=sys.stderr)
    return status


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `load_model` reads: the file, and the images of a network that does not say which it takes."""
    file = "a .keras file that train saved, or a network with its weights, such as convmixer_256_8_p2_k5:cifar10"
    parser.add_argument("model", metavar="MODEL", help=file)
    pixels = parser.add_argument_group("images of a network that does not say which it takes")
    pixels.add_argument("--size", type=whole_number, metavar="N", help="side in pixels (default: the input's)")
    for name, default in (("mean", IMAGENET.mean), ("std", IMAGENET.std)):
        colours = f"of the colours, for pixels from 0 to 1 (default: ImageNet's, {' '.join(map(str, default))})"
        pixels.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=colours)


def load_model(arguments: argparse.Namespace, needs_pixels: bool = True) -> keras.Model:
    """Reads the network of a command; where --size, --mean or --std is given, they say which images it takes."""
    from keras_mixers.inference import load_trained

    if not (arguments.size or arguments.mean or arguments.std):
        return load_trained(arguments.model, needs_pixels=needs_pixels)
    model = load_trained(arguments.model, needs_pixels=False)
    size = arguments.size or next((side for side in model.input_shape[2:0:-1] if side not in (None, 1, 3)), None)
    if size is None:
        raise ValueError(f"The network in {arguments.model!r} takes images of any size; say which with --size.")
    model.pixels = ImageSpec(size, tuple(arguments.mean or IMAGENET.mean), tuple(arguments.std or IMAGENET.std))
    return model


@contextlib.contextmanager
def ending_in_a_sentence(debug: bool = False) -> Iterator[None]:
    """Turns an error into one sentence and a SystemExit with its status; with `debug` the error is raised as it is."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # such as of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes what is left
        raise SystemExit(FAILED) from None
    except (KeyboardInterrupt, *REFUSALS, OSError, FloatingPointError, RuntimeError) as error:
        if debug:
            raise
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(report_failure("Stopped.", INTERRUPTED)) from None
        raise SystemExit(report_failure(error, REFUSED if isinstance(error, REFUSALS) else FAILED)) from error


def _reading(kind: type, check: Callable[[str, Any], Any], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return check("value", kind(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from error

    return read


whole_number = _reading(int, check_positive_int, "a whole number of at least 1")
number = _reading(float, check_positive, "a number above 0")
