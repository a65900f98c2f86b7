"""Examples that train by a recipe: on stand-ins of their TFDS data sets, and on a folder of images."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from drawn_images import CLASSES, write_class_folders, write_tfds

from keras_mixers.inference import load_trained
from keras_mixers.training import RECIPES, Recipe

pytestmark = pytest.mark.backend_independent

EXAMPLES = Path(__file__).parents[2] / "examples"
# Name of the example and of its recipes: TFDS data set, network, what makes it small, and its splits.
DATASETS = {
    "cifar100": ("cifar100", "splitmixer_v_r3_5", ["pixels.size=32"], ("train", "test")),
    "flowers102": ("oxford_flowers102", "splitmixer_iv", ["pixels.size=28", "augmentation.resize=30"],
                   ("train", "test")),
    "food101": ("food101", "convmixer", ["pixels.size=28", "augmentation.resize=30"], ("train", "validation")),
    "imagenet": ("imagenet2012", "splitmixer_i_1536_20", ["pixels.size=28"], ("train", "validation")),
}  # fmt: skip


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example in this process, and give what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", ["cifar10", *DATASETS, "image_folder"])
def test_helps(run, capsys, name):
    with pytest.raises(SystemExit) as caught:
        run(name, "--help")
    assert caught.value.code == 0
    assert f"python examples/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("name", DATASETS)
def test_tells_the_published_accuracy_of_each_recipe(name):
    told = re.findall(r"^    (\w+) +(\d\d\.\d\d)$", (EXAMPLES / f"{name}.py").read_text(), re.MULTILINE)
    assert {f"{name}_{model}": float(top1) for model, top1 in told} == {
        recipe: values.published
        for recipe, values in RECIPES.items()
        if recipe.startswith(f"{name}_") and values.published is not None
    }


@pytest.mark.parametrize("name", DATASETS)
def test_trains_by_a_recipe(run, tmp_path, name):
    dataset, model, small, (train, test) = DATASETS[name]
    write_tfds(dataset, tmp_path, {train: 6, test: 3}, 32)
    blocks = "depth" if model == "convmixer" else "blocks"
    small = [*small, f"model_arguments.{blocks}=1", "model_arguments.dim=10", "precision=float32"]
    arguments = ["--data-dir", tmp_path, "--model", model, "--epochs", 1, "--batch-size", 4, "--set", *small]
    out = run(name, *arguments, "--output-dir", tmp_path / "run", "--quiet")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    recipe = Recipe.from_json(metrics["recipe"])
    assert (recipe.dataset, recipe.model) == (dataset, RECIPES[f"{name}_{model}"].model)
    assert out == f"Test accuracy {metrics['top1']:.4f}: {tmp_path / 'run'}\n"


def test_trains_on_a_folder_of_images_from_trained_weights(run, tmp_path):
    folder = write_class_folders(tmp_path / "photos", 12, 20)
    small = ["--image-size", 14, "--quiet", "--batch-size", 4, "--set", "model_arguments.dim=8"]
    small = [folder, *small, "model_arguments.blocks=2", "augmentation.rand_augment=None"]
    out = run("image_folder", *small, "--output-dir", tmp_path / "first", "--epochs", 2)
    assert re.fullmatch(rf"Test accuracy [01]\.\d{{4}}: {tmp_path / 'first'}\n", out)
    first = tmp_path / "first" / "model.keras"
    run("image_folder", *small, "--output-dir", tmp_path / "next", "--epochs", 1, "--weights", first, "--freeze", 2)
    model = load_trained(tmp_path / "next" / "model.keras")
    assert (model.class_names, model.pixels.size) == (CLASSES, 14)
    for layer in ("patch_embed", "block_1_channel"):
        kernel, before = (network.get_layer(layer).get_weights()[0] for network in (model, load_trained(first)))
        assert (kernel == before).all()
