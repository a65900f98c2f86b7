"""The command line: `python -m keras_mixers list`, and likewise `train cifar10_splitmixer_i` and the other commands."""

import argparse
import sys
from collections.abc import Sequence

from keras_mixers import __version__, backends
from keras_mixers.commands import (
    benchmark,
    compare,
    evaluate,
    export,
    list_models,
    predict,
    reproduce,
    summary,
    train,
    visualize,
)
from keras_mixers.commands.command import DEBUG_HELP, ending_in_a_sentence

COMMANDS = {
    "list": list_models.COMMAND,
    "summary": summary.COMMAND,
    "train": train.COMMAND,
    "reproduce": reproduce.COMMAND,
    "compare": compare.COMMAND,
    "evaluate": evaluate.COMMAND,
    "predict": predict.COMMAND,
    "visualize": visualize.COMMAND,
    "export": export.COMMAND,
    "benchmark": benchmark.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, that of the process by default, and returns its exit status."""
    parser = argparse.ArgumentParser("python -m keras_mixers", description="ConvMixer and SplitMixer for Keras 3.")
    parser.add_argument("--version", action="version", version=f"keras_mixers {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        # Commands that train have --debug themselves, as the examples do.
        subparser = commands.add_parser(name, help=command.help, description=command.help, conflict_handler="resolve")
        command.add_arguments(subparser)
        subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        with ending_in_a_sentence(arguments.debug):
            if getattr(arguments, "keep_memory", True):
                backends.keep_memory()
            return COMMANDS[arguments.command].run(arguments)
    except SystemExit as ended:
        if not isinstance(ended.code, int):  # a sentence, which Python writes
            raise
        return ended.code


if __name__ == "__main__":
    sys.exit(main())
