"""`python -m keras_mixers list [PATTERN]`."""

import argparse

from keras_mixers.commands.command import Command
from keras_mixers.commands.summary import profile_preset
from keras_mixers.models import PRESETS, list_models
from keras_mixers.profiling import without_values
from keras_mixers.profiling.table import aligned


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", help="a pattern as for files, such as '*_256_8*'; all models without it")


def _run(arguments: argparse.Namespace) -> int:
    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"There is no model like {arguments.pattern!r}; python -m keras_mixers list names them all.")

    def row(name: str) -> tuple[str, int, int, int, str]:
        preset = PRESETS[name]
        found = profile_preset(name, (preset.pixels.size, preset.pixels.size))
        by_dataset: dict[str, list[str]] = {}
        for published in preset.published:
            by_dataset.setdefault(published.dataset, []).append(f"{published.top1:.2f}")
        accuracies = ", ".join(f"{dataset} {' / '.join(figures)}" for dataset, figures in by_dataset.items())
        return name, found.params, found.macs, preset.pixels.size, accuracies

    rows = without_values(lambda: [*map(row, names)])
    print(aligned([("model", "parameters", "MACs", "image", "published top-1 in %"), *rows]))
    return 0


COMMAND = Command("the models of the table, their sizes and published accuracies", _add_arguments, _run)
