"""`python -m keras_mixers list [PATTERN]`."""

import argparse

from keras_mixers.commands.command import Command
from keras_mixers.commands.summary import profile_preset
from keras_mixers.models import PRESETS, Preset, list_models
from keras_mixers.profiling import without_values
from keras_mixers.profiling.table import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `list`."""
    parser.add_argument("pattern", nargs="?", help="a pattern as for files, such as '*_256_8*'; all models without it")


def run(arguments: argparse.Namespace) -> int:
    """Prints a row for each model of the table."""
    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"There is no model like {arguments.pattern!r}; python -m keras_mixers list names them all.")

    def row(name: str) -> tuple[str, int, int, int, str]:
        preset = PRESETS[name]
        found = profile_preset(name, (preset.pixels.size, preset.pixels.size))
        return name, found.params, found.macs, preset.pixels.size, accuracies(preset)

    rows = without_values(lambda: [row(name) for name in names])
    print(aligned([("model", "parameters", "MACs", "image", "published top-1 in %"), *rows]))
    return 0


def accuracies(preset: Preset) -> str:
    """Returns the published accuracies, those on one data set side by side."""
    by_dataset: dict[str, list[str]] = {}
    for published in preset.published:
        by_dataset.setdefault(published.dataset, []).append(f"{published.top1:.2f}")
    return ", ".join(f"{dataset} {' / '.join(figures)}" for dataset, figures in by_dataset.items())


COMMAND = Command("the models of the table, their sizes and published accuracies", add_arguments, run)
