"""What a command is, and how commands refuse."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from keras_mixers.layers.validation import check_positive_int

MODEL_HELP = "a .keras file that train saved, or a network with its weights, such as splitmixer_i_256_8:cifar10"
FAILED, REFUSED = 1, 2  # exit statuses; argparse, too, refuses arguments with 2


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
