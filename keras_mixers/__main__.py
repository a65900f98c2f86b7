"""The command line: `python -m keras_mixers list`, and likewise `summary splitmixer_i_256_8` and `benchmark`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models import PRESETS, Preset, create_model, find_preset, list_models
from keras_mixers.profiling import Profile, profile, without_values
from keras_mixers.profiling.benchmark import benchmark, paper_protocol
from keras_mixers.profiling.peers import PEERS
from keras_mixers.profiling.report import check_csv, check_folder
from keras_mixers.profiling.table import aligned
from keras_mixers.profiling.tasks import MODES, PRECISIONS

FAILED = 1
REFUSED = 2  # the exit status with which argparse, too, refuses arguments


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        help: one line that says what it does.
        add_arguments: adds its arguments to its parser.
        run: does it and returns an exit status.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def refuse(reason: ValueError | str) -> int:
    """Says why a command is not carried out, in one sentence, and returns the exit status for it."""
    print(reason, file=sys.stderr)
    return REFUSED


def whole_number(text: str) -> int:
    """Reads an argument that must be a whole number of at least 1."""
    try:
        return check_positive_int("value", int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}") from error


def profile_preset(name: str, size: tuple[int, int], **overrides: int) -> Profile:
    """Profiles the model that the table calls `name` for images of `size`, (height, width) in pixels."""
    model = create_model(name, **overrides)
    sides = iter(size)
    return profile(model, [channels or next(sides) for channels in model.input_shape[1:]])


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `list`."""
    parser.add_argument("pattern", nargs="?", help="a pattern as for files, such as '*_256_8*'; all models without it")


def run_list(arguments: argparse.Namespace) -> int:
    """Prints a row for each model of the table."""
    names = list_models(arguments.pattern)
    if not names:
        return refuse(f"There is no model like {arguments.pattern!r}; python -m keras_mixers list names them all.")

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


def add_summary_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `summary`."""
    parser.add_argument("name", help="a model of the table, such as splitmixer_i_256_8")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--input-shape", nargs=2, type=whole_number, metavar=("H", "W"), help="height and width in pixels"
    )
    size.add_argument("--image-size", type=whole_number, metavar="N", help="height and width in pixels, if equal")
    parser.add_argument("--num-classes", type=whole_number, metavar="N", help="classes of the head, if not the table's")


def run_summary(arguments: argparse.Namespace) -> int:
    """Prints the profile of a model of the table, at its published image size unless another is given."""
    overrides = {"num_classes": arguments.num_classes} if arguments.num_classes else {}
    try:
        side = arguments.image_size or find_preset(arguments.name).pixels.size
        size = tuple(arguments.input_shape or (side, side))
        found = without_values(profile_preset, arguments.name, size, **overrides)
    except ValueError as error:
        return refuse(error)
    print(found)
    return 0


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `benchmark`."""
    add = parser.add_argument
    models = ["convmixer_256_8_p2_k5", "splitmixer_i_256_8"]
    add(
        "--models",
        nargs="+",
        default=models,
        metavar="NAME",
        help=f"models of the table (default: {' and '.join(models)})",
    )
    add("--against", nargs="+", default=[], choices=tuple(PEERS), help="what they are compared with (default: nothing)")
    add("--modes", nargs="+", default=MODES, choices=MODES, help="(default: both)")
    add("--image-size", type=whole_number, metavar="N", help="height and width in pixels (default: the table's)")
    add("--repetitions", type=whole_number, default=7, metavar="N", help="rounds (default: 7)")
    # Those that a protocol sets have no default here.
    add(
        "--batch",
        nargs="+",
        type=whole_number,
        metavar="N",
        help="images in a batch, 1 for the latency too (default: 64)",
    )
    add("--precision", choices=PRECISIONS, help="(default: float32)")
    add("--batches", type=whole_number, metavar="N", help="batches timed at once (default: 1)")
    add("--protocol", choices=("paper",), help="the papers' batch, precision and batches, for the device")
    add("--memory", action="store_true", help="measure peak memory too, each subject in a process of its own")
    add("--csv", metavar="FILE", help="append the results to this file")
    add("--json", metavar="FILE", help="write the results to this file")


def run_benchmark(arguments: argparse.Namespace) -> int:
    """Prints how fast models of the table run, side by side with their peers."""
    settings = {name: getattr(arguments, name) for name in ("batch", "precision", "batches")}
    settings = {name: value for name, value in settings.items() if value is not None}
    if arguments.protocol and settings:
        given = " and ".join(f"--{name}" for name in settings)
        return refuse(f"--protocol {arguments.protocol} sets batch, precision and batches, got {given} too; leave it.")
    try:
        if arguments.csv:
            check_csv(arguments.csv)
        if arguments.json:
            check_folder("json", arguments.json)
        report = benchmark(
            arguments.models,
            arguments.against,
            image_size=arguments.image_size,
            modes=arguments.modes,
            repetitions=arguments.repetitions,
            memory=arguments.memory,
            **(paper_protocol() if arguments.protocol else settings),
        )
    except ValueError as error:
        return refuse(error)
    print(report, flush=True)
    status = 0
    if arguments.csv:
        status = save(report.append_csv, arguments.csv)
    if arguments.json:
        status = save(report.write_json, arguments.json) or status
    return status


def save(write: Callable[[str], None], path: str) -> int:
    """Lets `write` write results to `path`, or says why it cannot; returns an exit status."""
    try:
        write(path)
    except (OSError, ValueError) as error:  # disk and folder may have changed since they were checked
        reason = getattr(error, "strerror", None) or error
        print(f"The results could not be written to {path!r}: {reason}", file=sys.stderr)
        return FAILED
    return 0


COMMANDS = {
    "benchmark": Command("how fast models run, side by side with peers", add_benchmark_arguments, run_benchmark),
    "list": Command("the models of the table, their sizes and published accuracies", add_list_arguments, run_list),
    "summary": Command("what each layer of a model costs", add_summary_arguments, run_summary),
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
    return COMMANDS[arguments.command].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
