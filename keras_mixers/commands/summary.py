"""`python -m keras_mixers summary MODEL`."""

import argparse

from keras_mixers.commands.command import Command, whole_number
from keras_mixers.models import create_model, get_preset
from keras_mixers.profiling import Profile, profile, without_values


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a model of the table, such as splitmixer_i_256_8")
    size = parser.add_mutually_exclusive_group()
    sides = "height and width in pixels"
    size.add_argument("--input-shape", nargs=2, type=whole_number, metavar=("H", "W"), help=sides)
    size.add_argument("--image-size", type=whole_number, metavar="N", help=f"{sides}, if equal")
    parser.add_argument("--num-classes", type=whole_number, metavar="N", help="classes of the head, if not the table's")


def _run(arguments: argparse.Namespace) -> int:
    overrides = {"num_classes": arguments.num_classes} if arguments.num_classes else {}
    side = arguments.image_size or get_preset(arguments.name).pixels.size
    size = tuple(arguments.input_shape or (side, side))
    print(without_values(profile_preset, arguments.name, size, **overrides))
    return 0


def profile_preset(name: str, size: tuple[int, int], **overrides: int) -> Profile:
    """Profiles the model that the table calls `name` for images of `size`, (height, width) in pixels."""
    model = create_model(name, **overrides)
    sides = iter(size)
    return profile(model, [channels or next(sides) for channels in model.input_shape[1:]])


COMMAND = Command("what each layer of a model costs", _add_arguments, _run)
