"""`python -m keras_mixers visualize MODEL.keras --image FILE --out DIR`."""

import argparse
from pathlib import Path

from keras_mixers.commands.command import Command, add_model_arguments, load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `visualize`."""
    add = parser.add_argument
    add_model_arguments(parser)
    add("--image", required=True, metavar="FILE", help="the image whose feature maps and class maps are drawn")
    add("--out", required=True, metavar="DIR", help="a new or empty folder for the figures and index.html")
    add("--history", metavar="CSV", help="of its training, for the curves (default: history.csv beside the network)")


def run(arguments: argparse.Namespace) -> int:
    """Writes the figures of a network and a page that shows them."""
    from keras_mixers.training.history import read_history
    from keras_mixers.visualize import write_page

    model = load_model(arguments)
    beside = Path(arguments.model).with_name("history.csv")
    trained = Path(arguments.model).is_file() and beside.is_file()
    path = Path(arguments.history) if arguments.history else beside if trained else None
    history = read_history(path) if path else None
    print(write_page(model, arguments.image, arguments.out, history=history))
    return 0


COMMAND = Command("draw what a network has learned, as a page for a browser", add_arguments, run)
