"""Publishes finished runs of `reproduce`: their rows, logs and curves in docs/results, their weights in the package.

    python docs/scripts/publish.py results.csv --runs runs/reproduce --commit COMMIT --data-dir ~/tensorflow_datasets

The weights are those after the last epoch, not those of the epoch that was best on the test images. They are stored in
float16 where that costs less than 0.02 points on the test images, else in float32. Where a network has weights for the
data set already, the more accurate ones are kept.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from keras_mixers.data import load_tfds
from keras_mixers.inference import evaluate_images, load_trained
from keras_mixers.models import create_model, get_preset
from keras_mixers.models.datasets import find_dataset
from keras_mixers.training.recipe import Recipe
from keras_mixers.training.reproduction import run_folder
from keras_mixers.training.results import RunResult, add_result, read_results
from keras_mixers.training.run import read_metrics
from keras_mixers.weights import WeightsCard, read_card
from keras_mixers.weights.packaged import FOLDER, round_weights, write_weights

RESULTS = Path(__file__).parents[1] / "results"
LARGEST_LOSS = 0.02
KEPT = ("history.csv", "metrics.json", "curves.png")


def publish(
    result: RunResult, run: Path, commit: str, data_dir: str | None, results: Path = RESULTS, weights: Path = FOLDER
) -> WeightsCard:
    """Publishes one run.

    Args:
        result: its row.
        run: its folder.
        commit: version of the library that carried it out.
        data_dir: where TFDS keeps its data.
        results: folder of the CSV files and of the logs.
        weights: folder of the weights.
    """
    recipe = Recipe.from_json(read_metrics(run / "metrics.json")["recipe"])
    trained = load_trained(run / "model.keras")
    dataset = find_dataset(recipe.dataset)
    dataset = dataset.name if dataset else recipe.dataset
    images = load_tfds(recipe.dataset, recipe.test_split, data_dir, limit=recipe.limit_test)
    model = create_model(recipe.model, input_shape=trained.input_shape[1:], num_classes=images.num_classes)
    model.set_weights(trained.get_weights())  # refuses a network with other arguments than the table's
    model.class_names, model.pixels = images.class_names, trained.pixels
    exact = evaluate_images(model, images, flip=True)
    round_weights(model, "float16")
    found, stored_as = evaluate_images(model, images, flip=True), "float16"
    if 100 * (exact["top1"] - found["top1"]) >= LARGEST_LOSS:
        model.set_weights(trained.get_weights())
        found, stored_as = exact, "float32"
    card = WeightsCard(
        model=recipe.model,
        dataset=dataset,
        class_names=images.class_names,
        pixels=recipe.to_json()["pixels"],
        top1=round(100 * found["top1"], 2),
        top1_flipped=round(100 * found["top1_flipped"], 2),
        published=recipe.published,
        recipe=result.recipe,
        changes=result.changes,
        epochs=result.epochs,
        seed=result.seed,
        minutes=result.minutes,
        machine=result.machine,
        command=result.command,
        commit=commit,
        stored_as=stored_as,
    )
    known = get_preset(recipe.model).weights.get(dataset)
    if known is None or read_card(known).top1 < card.top1:
        write_weights(model, card, weights)
    log = results / "runs" / run.name
    log.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).exists():
            shutil.copy(run / name, log / name)
    table = results / f"{dataset}.csv"
    if result not in read_results(table):
        add_result(table, result)
    return card


def main() -> None:
    """Publishes the rows of a CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="the CSV that reproduce wrote")
    parser.add_argument("--runs", type=Path, required=True, help="the folder that reproduce wrote the runs to")
    parser.add_argument("--commit", required=True, help="version of this library that carried them out")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TensorFlow Datasets keeps its data")
    arguments = parser.parse_args()
    for result in read_results(arguments.results):
        folder = arguments.runs / run_folder(result.recipe, result.changes, result.backend.split()[0])
        card = publish(result, folder, arguments.commit, arguments.data_dir)
        print(json.dumps({name: value for name, value in asdict(card).items() if name != "class_names"}, indent=2))


if __name__ == "__main__":
    main()
