"""`python -m keras_mixers benchmark`."""

import argparse

from keras_mixers.benchmark.benchmark import benchmark, paper_protocol
from keras_mixers.benchmark.peers import PEERS
from keras_mixers.benchmark.report import check_csv, check_folder
from keras_mixers.benchmark.subjects import MODES, PRECISIONS
from keras_mixers.commands.command import FAILED, Command, report_failure, whole_number

MODELS = ("convmixer_256_8_p2_k5", "splitmixer_i_256_8")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    models = f"models of the table (default: {' and '.join(MODELS)})"
    add("--models", nargs="+", default=[*MODELS], metavar="NAME", help=models)
    add("--against", nargs="+", default=[], choices=tuple(PEERS), help="what they are compared with (default: nothing)")
    add("--modes", nargs="+", default=MODES, choices=MODES, help="(default: both)")
    add("--image-size", type=whole_number, metavar="N", help="height and width in pixels (default: the table's)")
    add("--repetitions", type=whole_number, default=7, metavar="N", help="rounds (default: 7)")
    # A protocol sets these, so they have no default here.
    add("--batch", nargs="+", type=whole_number, metavar="N", help="images in a batch, 1 for latency (default: 64)")
    add("--precision", choices=PRECISIONS, help="(default: float32)")
    add("--batches", type=whole_number, metavar="N", help="batches timed at once (default: 1)")
    add("--protocol", choices=("paper",), help="the papers' batch, precision and batches, for the device")
    add("--memory", action="store_true", help="measure peak memory too, each subject in a process of its own")
    keep = "keep memory that was freed, for peers too (default: it is kept)"
    add("--keep-memory", action=argparse.BooleanOptionalAction, default=True, help=keep)
    add("--csv", metavar="FILE", help="append the results to this file")
    add("--json", metavar="FILE", help="write the results to this file")


def _run(arguments: argparse.Namespace) -> int:
    given = ((name, getattr(arguments, name)) for name in ("batch", "precision", "batches"))
    settings = {name: value for name, value in given if value is not None}
    if arguments.protocol and settings:
        given = " and ".join(f"--{name}" for name in settings)
        raise ValueError(
            f"--protocol {arguments.protocol} sets batch, precision and batches, got {given} too; leave it."
        )
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
        keep_memory=arguments.keep_memory,
        **(paper_protocol() if arguments.protocol else settings),
    )
    print(report, flush=True)
    status = 0
    for write, path in (("append_csv", arguments.csv), ("write_json", arguments.json)):
        try:
            if path:
                getattr(report, write)(path)
        except (OSError, ValueError) as error:  # disk and folder may have changed since they were checked
            reason = getattr(error, "strerror", None) or error
            status = report_failure(f"The results could not be written to {path!r}: {reason}", FAILED)
    return status


COMMAND = Command("how fast models run, side by side with peers", _add_arguments, _run)
