"""`python -m keras_mixers train RECIPE`."""

import argparse

from keras_mixers.commands.command import Command, number
from keras_mixers.commands.training_arguments import (
    add_dataset_arguments,
    add_run_arguments,
    join_the_others,
    run_arguments,
)
from keras_mixers.profiling.table import aligned


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", help="name of a recipe, such as cifar10_splitmixer_i; 'list' shows all of them")
    add("--images", metavar="FOLDER", help="images of your own: train/CLASS/FILE and val/CLASS/FILE, or CLASS/FILE")
    part = "of --images without val: the part that is evaluated (default: 0.1)"
    add("--validation-part", type=number, default=0.1, metavar="X", help=part)
    add("--weights", metavar="FILE", help="trained weights to start from, with a new head")
    add("--freeze", type=int, default=0, metavar="N", help="blocks, and the embedding, that keep those weights")
    add_dataset_arguments(parser)
    add_run_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    from keras_mixers.training import RECIPES, get_recipe

    if arguments.recipe == "list":
        rows = [
            (name, recipe.model, recipe.dataset, recipe.epochs, f"{recipe.published:.2f}" if recipe.published else "")
            for name, recipe in RECIPES.items()
        ]
        print(aligned([("recipe", "model", "data set", "epochs", "published top-1 in %"), *rows]))
        return 0

    from keras_mixers.data import load_folders
    from keras_mixers.data.damaged import naming_damaged
    from keras_mixers.training import fit

    recipe = get_recipe(arguments.recipe).change(dict(arguments.changes))
    process = join_the_others(arguments)
    settings = run_arguments(arguments, f"runs/{arguments.recipe}", process)
    images = {}
    if arguments.images:
        recipe = recipe.change({"dataset": "folder", "published": None, "source": ""})
        images = load_folders(arguments.images, arguments.validation_part, recipe.seed)
    with naming_damaged(*images.values()):
        data = {"data_dir": arguments.data_dir, "download": arguments.download, **images}
        trained = fit(recipe, weights=arguments.weights, freeze=arguments.freeze, **data, **settings)
    published = f" (published for the recipe: {recipe.published:.2f} %)" if recipe.published else ""
    if trained.writes:
        print(f"Test accuracy {100 * trained.metrics['top1']:.2f} %{published}: {trained.directory}")
    return 0


COMMAND = Command("train a network as a recipe says, or on your own images", _add_arguments, _run)
