"""`python -m keras_mixers visualize MODEL.keras --image FILE --out DIR`."""

import argparse
from pathlib import Path

from keras_mixers.commands.command import Command, add_model_arguments, load_model


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_arguments(parser)
    add("--image", required=True, metavar="FILE", help="the image whose feature maps and class maps are drawn")
    add("--out", required=True, metavar="DIR", help="a new or empty folder for the figures and index.html")
    add("--history", metavar="CSV", help="of its training, for the curves (default: history.csv beside the network)")


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.training.history import read_history
    from keras_mixers.visualize import write_page

    model = load_model(arguments)
    path = arguments.history
    if not path and Path(arguments.model).is_file():
        beside = Path(arguments.model).with_name("history.csv")
        path = beside if beside.is_file() else None
    history = read_history(path) if path else None
    print(write_page(model, arguments.image, arguments.out, history=history))
    return 0


COMMAND = Command("draw what a network has learned, as a page for a browser", _add_arguments, _run)
