"""`python -m keras_mixers reproduce cifar10`."""

import argparse
from pathlib import Path

from keras_mixers.commands.command import Command
from keras_mixers.commands.training_arguments import (
    add_dataset_arguments,
    add_device_arguments,
    add_recipe_changes,
    join_the_others,
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = "a data set, such as cifar10, for all of its published runs; or a recipe"
    add("names", nargs="*", metavar="NAME", help=names)
    results = "the CSV that gets a row of each (default: results.csv)"
    add("--results", default="results.csv", metavar="FILE", help=results)
    add("--table", action="store_true", help="only print the rows of --results as a table in Markdown")
    add("--output-dir", default="runs/reproduce", metavar="FOLDER", help="the runs (default: runs/reproduce)")
    add("--quiet", action="store_true", help="show only the results")
    add_recipe_changes(parser)
    add_dataset_arguments(parser)
    add_device_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.training.reproduction import reproduce
    from keras_mixers.training.results import markdown, read_results

    if arguments.table and not Path(arguments.results).exists():
        raise FileNotFoundError(f"There are no results in {arguments.results!r}; 'reproduce NAME' writes them there.")
    if arguments.table:
        print(markdown(read_results(arguments.results)))
        return 0
    if not arguments.names:
        raise ValueError("Give the name of a data set, such as cifar10, or of a recipe; 'train list' shows them.")
    process = join_the_others(arguments)
    done = reproduce(
        arguments.names,
        arguments.results,
        output_dir=arguments.output_dir,
        changes=dict(arguments.changes),
        data_dir=arguments.data_dir,
        download=arguments.download,
        devices=arguments.devices,
        verbose=not arguments.quiet,
    )
    if process == 0:
        print(markdown(done))
    return 0


COMMAND = Command("run published runs again and keep what they give in a table", _add_arguments, _run)
