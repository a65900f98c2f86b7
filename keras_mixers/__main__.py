"""The command line: `python -m keras_mixers list`, and likewise `train cifar10_splitmixer_i` and the other commands."""

import argparse
import sys
from collections.abc import Sequence

from keras_mixers.commands import (
    benchmark,
    evaluate,
    export,
    list_models,
    predict,
    reproduce,
    summary,
    train,
    visualize,
)
from keras_mixers.commands.command import FAILED, report_failure

COMMANDS = {
    "list": list_models.COMMAND,
    "summary": summary.COMMAND,
    "train": train.COMMAND,
    "reproduce": reproduce.COMMAND,
    "evaluate": evaluate.COMMAND,
    "predict": predict.COMMAND,
    "visualize": visualize.COMMAND,
    "export": export.COMMAND,
    "benchmark": benchmark.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status."""
    parser = argparse.ArgumentParser("python -m keras_mixers", description="ConvMixer and SplitMixer for Keras 3.")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.help, description=command.help))
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return COMMANDS[arguments.command].run(arguments)
    except (ValueError, FileExistsError, FileNotFoundError, ImportError) as error:  # arguments, what is missing
        return report_failure(error)
    except (OSError, FloatingPointError, RuntimeError) as error:  # the disk, a loss that is not a number, a converter
        return report_failure(error, FAILED)


if __name__ == "__main__":
    sys.exit(main())
