"""What every training run can be told on a command line: by `train`, and by the programs in examples/."""

import argparse
import functools
from typing import Any

import keras

from keras_mixers.commands.command import DEBUG_HELP, number, whole_number


def add_recipe_changes(parser: argparse.ArgumentParser) -> None:
    """Adds `changes`, pairs of a recipe's field and its value."""
    changes = {"dest": "changes", "default": []}
    for option, field in (("--epochs", "epochs"), ("--batch-size", "batch_size")):
        pair = functools.partial(lambda field, text: (field, text), field)
        parser.add_argument(option, action="append", type=pair, metavar="N", help="if not the recipe's", **changes)
    others = "other fields of the recipe, such as precision=float32 augmentation.flip=False model_arguments.dim=128"
    parser.add_argument("--set", nargs="+", action="extend", type=_change, metavar="NAME=VALUE", help=others, **changes)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `changes`, and what `run_arguments` reads."""
    add_recipe_changes(parser)
    add = parser.add_argument
    add("--output-dir", metavar="FOLDER", help="where everything is written (default: a folder in runs)")
    add("--resume", action="store_true", help="resume the run in --output-dir")
    add("--checkpoint-minutes", type=number, default=15, metavar="N", help="time between checkpoints (default: 15)")
    add("--tensorboard", action="store_true", help="write logs for TensorBoard too")
    add("--quiet", action="store_true", help="show only the result")
    add("--debug", action="store_true", help=DEBUG_HELP)
    add_device_arguments(parser)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `devices`, and what `join_the_others` reads."""
    add, several = parser.add_argument, "of several processes, on JAX and PyTorch"
    add("--devices", type=whole_number, metavar="N", help="of this machine's accelerators (default: all)")
    add("--coordinator", metavar="HOST:PORT", help=f"{several}: where the first one listens")
    add("--processes", type=whole_number, metavar="N", help=f"{several}: how many there are")
    add("--process", type=int, metavar="I", help=f"{several}: which this is, from 0")


def join_the_others(arguments: argparse.Namespace) -> int:
    """Joins the other processes of a run, if any, before anything is computed; returns the number of this one."""
    from keras_mixers.training import join_processes

    return join_processes(arguments.coordinator, arguments.processes, arguments.process)


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where a data set of TFDS is, and whether it may be fetched."""
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TensorFlow Datasets keeps its data")
    fetched = "whether a data set that is not there is fetched (default: it is)"
    parser.add_argument("--download", action=argparse.BooleanOptionalAction, default=True, help=fetched)


def recipe_parser(description: str, model: str) -> argparse.ArgumentParser:
    """Makes the parser of a program that trains `model`, unless --model names another, on one data set."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=model, metavar="NAME", help=f"one of those above (default: {model})")
    add_dataset_arguments(parser)
    add_run_arguments(parser)
    return parser


def run_arguments(arguments: argparse.Namespace, output_dir: str, process: int = 0) -> dict[str, Any]:
    """Returns what `fit` takes of the arguments of `add_run_arguments`; only process 0 writes logs for TensorBoard."""
    output_dir = arguments.output_dir or output_dir
    logs = arguments.tensorboard and process == 0
    return {
        "output_dir": output_dir,
        "resume": arguments.resume,
        "checkpoint_minutes": arguments.checkpoint_minutes,
        "devices": arguments.devices,
        "callbacks": [keras.callbacks.TensorBoard(f"{output_dir}/tensorboard")] if logs else [],
        "verbose": not arguments.quiet,
    }


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, such as epochs=25, got {text!r}")
    return name, value
