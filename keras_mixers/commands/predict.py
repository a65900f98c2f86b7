"""`python -m keras_mixers predict MODEL.keras IMAGE ...`."""

import argparse
import json

import numpy as np

from keras_mixers.commands.command import Command, add_model_arguments, load_model, whole_number
from keras_mixers.profiling.table import aligned


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--top", type=whole_number, default=3, metavar="N", help="classes to show (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.inference import predict_images

    model = load_model(arguments)
    probabilities = predict_images(model, arguments.images)
    names = model.class_names or [str(i) for i in range(probabilities.shape[1])]
    found = {
        path: {names[i]: float(row[i]) for i in np.argsort(-row)[: arguments.top]}
        for path, row in zip(arguments.images, probabilities, strict=True)
    }
    rows = [(path, name, f"{value:.4f}") for path, classes in found.items() for name, value in classes.items()]
    print(json.dumps(found, indent=2) if arguments.json else aligned([("image", "class", "probability"), *rows]))
    return 0


COMMAND = Command("the most probable classes of images", _add_arguments, _run)
