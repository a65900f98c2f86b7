"""`python -m keras_mixers compare --dataset cifar10`."""

import argparse

from keras_mixers.commands.command import Command, number
from keras_mixers.commands.training_arguments import add_dataset_arguments, add_recipe_changes

MODELS = (
    "mlp_mixer_64_8_p4", "resmlp_64_8_p4", "gmlp_60_8_p4", "convmixer_176_8_p4_k5", "splitmixer_i_264_8_p4",
    "splitmixer_iv_250_8_p4",
)  # fmt: skip
RECIPE = "cifar10_splitmixer_i_fast"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    models = "models of the table (default: the six of about 0.3 M parameters, one of each family)"
    add("--models", nargs="+", default=[*MODELS], metavar="NAME", help=models)
    add("--dataset", metavar="NAME", help="a data set of TFDS (default: the recipe's)")
    add("--images", metavar="FOLDER", help="images of your own: train/CLASS/FILE and val/CLASS/FILE, or CLASS/FILE")
    part = "of --images without val: the part that is evaluated (default: 0.1)"
    add("--validation-part", type=number, default=0.1, metavar="X", help=part)
    add("--recipe", default=RECIPE, metavar="NAME", help=f"the recipe, the same for all (default: {RECIPE})")
    seeds = "each network is trained once with each (default: 0 1 2)"
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help=seeds)
    folder = "the runs, the table and the figure (default: runs/compare)"
    add("--output-dir", default="runs/compare", metavar="FOLDER", help=folder)
    add("--resume", action="store_true", help="resume the comparison in --output-dir; finished runs are skipped")
    add("--checkpoint-minutes", type=number, default=15, metavar="N", help="time between checkpoints (default: 15)")
    add("--quiet", action="store_true", help="show only the table")
    add_recipe_changes(parser)
    add_dataset_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.benchmark.comparison import compare, markdown
    from keras_mixers.data import load_folders
    from keras_mixers.data.damaged import naming_damaged

    if arguments.dataset and arguments.images:
        raise ValueError("--dataset and --images are two sources of images, got both; leave one of them.")
    dataset = "folder" if arguments.images else arguments.dataset
    changes = {**({"dataset": dataset} if dataset else {}), **dict(arguments.changes)}
    images = {}
    if arguments.images:
        images = load_folders(arguments.images, arguments.validation_part, arguments.seeds[0])
    with naming_damaged(*images.values()):
        rows = compare(
            arguments.models,
            arguments.recipe,
            output_dir=arguments.output_dir,
            seeds=arguments.seeds,
            changes=changes,
            resume=arguments.resume,
            data_dir=arguments.data_dir,
            download=arguments.download,
            checkpoint_minutes=arguments.checkpoint_minutes,
            verbose=not arguments.quiet,
            **images,
        )
    print(markdown(rows))
    return 0


COMMAND = Command("train networks with one recipe, and say what each reaches and costs", _add_arguments, _run)
