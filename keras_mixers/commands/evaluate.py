"""`python -m keras_mixers evaluate MODEL.keras`."""

import argparse
import json
from dataclasses import replace

from keras_mixers.commands.command import Command, add_model_arguments, load_model, whole_number
from keras_mixers.commands.training_arguments import add_dataset_arguments
from keras_mixers.profiling.table import aligned


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", metavar="NAME", help="a data set of TFDS, such as cifar10")
    folders = "images of your own: CLASS/FILE, or val/CLASS/FILE beside train"
    source.add_argument("--images", metavar="FOLDER", help=folders)
    add("--split", default="test", help="the split of the data set (default: test)")
    add_dataset_arguments(parser)
    add("--limit", type=whole_number, metavar="N", help="evaluate only the first images")
    add("--batch-size", type=whole_number, default=128, metavar="N", help="(default: 128)")
    crop = "share of the shorter side that the crop at the centre keeps (default: the network's)"
    add("--crop-fraction", type=float, metavar="SHARE", help=crop)
    add("--flip", action="store_true", help="also average over each image and its mirror image, as a further figure")
    add("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.data import load_folder, load_tfds
    from keras_mixers.data.sources import evaluated_folder
    from keras_mixers.inference import evaluate_images

    model = load_model(arguments)
    if arguments.crop_fraction is not None:
        model.pixels = replace(model.pixels, crop_fraction=arguments.crop_fraction)
    if arguments.images:
        images = load_folder(evaluated_folder(arguments.images), arguments.limit)
    else:
        images = load_tfds(arguments.dataset, arguments.split, arguments.data_dir, arguments.download, arguments.limit)
    found = evaluate_images(model, images, arguments.batch_size, flip=arguments.flip)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    names = {"top1": "top-1 in %", "top5": "top-5 in %", "top1_flipped": "top-1 flipped in %"}
    figures = {words: f"{100 * found[key]:.2f}" for key, words in names.items() if key in found}
    print(aligned([("images", *figures, "loss"), (found["images"], *figures.values(), f"{found['loss']:.4f}")]))
    return 0


COMMAND = Command("accuracy of a trained network on a data set or a folder of images", _add_arguments, _run)
