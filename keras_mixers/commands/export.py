"""`python -m keras_mixers export MODEL.keras OUT`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from keras_mixers.commands.command import Command, add_model_arguments, load_model, number, whole_number
from keras_mixers.models.image_files import IMAGE_SUFFIXES


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from keras_mixers.export.formats import FORMATS, quantizations

    written = [f"{format.suffix or 'a folder'} ({format.title})" for format in FORMATS.values()]
    having = {kind: [name for name, other, _ in quantizations() if other == kind] for _, kind, _ in quantizations()}
    with_integers = [f"{name} in {kind}" for name, kind, each in quantizations() if each.integer_io]
    add = parser.add_argument
    add_model_arguments(parser)
    add("path", metavar="OUT", help=f"what to write: {', '.join(written)}")
    add("--format", help=f"{', '.join(FORMATS)} (default: that of the suffix)")
    kinds = ", ".join(f"{kind} ({', '.join(names)})" for kind, names in having.items())
    add("--quantization", metavar="KIND", help=f"smaller numbers: {kinds}")
    add("--representative", metavar="FOLDER", help="images like those that an int8 network will see")
    add("--images", metavar="FOLDER", help="images on which both are compared (default: drawn ones)")
    add("--raw-pixels", action="store_true", help="takes pixels from 0 to 255")
    add("--probabilities", action="store_true", help="gives probabilities")
    add("--integer-io", action="store_true", help=f"of {', '.join(with_integers)}: takes and gives integers")
    add("--batch-size", type=whole_number, metavar="N", help="images at once (default: any number)")
    add("--image-size", type=_size, metavar="N", help="side of an image in pixels, or any (default: the network's)")
    add("--no-fold", action="store_true", help="leave the norms as they are")
    add("--tolerance", type=number, metavar="X", help="the largest difference from the network that is accepted")
    add("--json", action="store_true", help="print JSON instead of a sentence")


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.export import export_model

    same = ("quantization", "raw_pixels", "probabilities", "integer_io", "batch_size", "image_size", "tolerance")
    report = export_model(
        load_model(arguments, needs_pixels=False),
        arguments.path,
        arguments.format,
        representative_data=_images(arguments.representative),
        images=_images(arguments.images),
        fold=not arguments.no_fold,
        **{name: getattr(arguments, name) for name in same},
    )
    print(json.dumps({**asdict(report), "path": str(report.path)}, indent=2) if arguments.json else report)
    return 0


def _size(text: str) -> int | str:
    return text if text == "any" else whole_number(text)


def _images(folder: str | None) -> list[Path] | None:
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder of images at {folder!r}.")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder!r} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return files


COMMAND = Command("write a network for another runtime, and compare both", _add_arguments, _run)
