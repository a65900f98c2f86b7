"""Recipes are the papers', to the number; fields are changed by name, and a misspelt one is told."""

from dataclasses import replace

import pytest
from drawn_images import write_tfds

from keras_mixers.data import DATASETS, Augmentation, Dataset
from keras_mixers.inference import load_trained
from keras_mixers.models import PRESETS, ImageSpec
from keras_mixers.training import RECIPES, Recipe, fit, get_recipe

pytestmark = pytest.mark.backend_independent

# Of facts that the papers and their authors' code state: data set, epochs, batch, learning rate, weight decay, epsilon,
# largest norm of the gradient, published accuracy.
PUBLISHED = {
    "cifar10_convmixer_25_epochs": ("cifar10", 25, 512, 0.05, 0.005, 1e-8, None, 92.60),
    "cifar10_convmixer_100_epochs": ("cifar10", 100, 512, 0.05, 0.005, 1e-8, None, 94.0),
    "cifar10_convmixer_200_epochs": ("cifar10", 200, 64, 0.01, 0.01, 1e-3, 1.0, 95.26),
    "cifar10_convmixer_p8_k9": ("cifar10", 200, 64, 0.01, 0.0, 1e-3, 1.0, 85.57),
    "imagenet_convmixer_1536_20": ("imagenet2012", 150, 640, 0.01, 2e-5, 1e-3, 1.0, 81.37),
    "imagenet_convmixer_768_32": ("imagenet2012", 300, 640, 0.01, 2e-5, 1e-3, 1.0, 80.16),
    "imagenet_convmixer_1024_20": ("imagenet2012", 150, 640, 0.01, 2e-5, 1e-3, 1.0, 76.94),
    "imagenet_splitmixer_i_1536_20": ("imagenet2012", 150, 640, 0.01, 2e-5, 1e-3, 1.0, 79.35),
    "imagenet_splitmixer_i_768_32": ("imagenet2012", 300, 640, 0.01, 2e-5, 1e-3, 1.0, 75.05),
}
TOP1 = {
    "cifar10": (94.17, 93.91, 92.25, 92.52, 93.38, 93.88, 93.96, 93.09),
    "cifar100": (73.92, 72.88, 70.44, 70.89, 71.75, 73.68, 74.63, 71.99),
    "flowers102": (60.47, 62.03, 59.33, 59.00, 61.51),
    "food101": (74.59, 73.56, 71.74, 72.78, 72.92),
}
OF_DATASET = {
    "cifar10": ("cifar10", 100, 512, 0.05, 0.005, 1e-8, 1.0),
    "cifar100": ("cifar100", 100, 512, 0.05, 0.005, 1e-8, 1.0),
    "flowers102": ("oxford_flowers102", 100, 64, 0.03, 0.1, 1e-8, 1.0),
    "food101": ("food101", 100, 128, 0.01, 0.005, 1e-8, 1.0),
}
NAMES = (
    "convmixer", "splitmixer_i", "splitmixer_ii", "splitmixer_iii", "splitmixer_iv", "splitmixer_v",
    "splitmixer_v_r3_5", "stridemixer",
)  # fmt: skip
for dataset, top1s in TOP1.items():
    for name, top1 in zip(NAMES, top1s, strict=False):
        PUBLISHED[f"{dataset}_{name}"] = (*OF_DATASET[dataset], top1)

MLPS = {"mlp_mixer": "mlp_mixer_512_8_p4", "resmlp": "resmlp_384_12_p4", "gmlp": "gmlp_128_30_p4"}
UNPUBLISHED = {f"{dataset}_{name}" for dataset in ("cifar10", "cifar100") for name in MLPS}
FAST = {f"{dataset}_{name}_fast" for dataset in ("cifar10", "cifar100") for name in (*NAMES, *MLPS)}


def test_every_recipe_is_in_this_table():
    assert set(RECIPES) == {*PUBLISHED, *UNPUBLISHED, *FAST, "cifar10_smoke", "photos"}


@pytest.mark.parametrize("name", sorted(UNPUBLISHED))
def test_mlps_are_trained_as_splitmixers(name):
    dataset, model = name.split("_", 1)
    assert get_recipe(name) == replace(
        get_recipe(f"{dataset}_splitmixer_i"), model=MLPS[model], published=None, source=""
    )


@pytest.mark.parametrize("name", sorted(FAST))
def test_the_short_recipe_is_one_for_all_networks(name):
    recipe, papers = get_recipe(name), get_recipe(name.removesuffix("_fast"))
    shared = get_recipe("cifar10_splitmixer_i_fast")
    assert (recipe.epochs, recipe.batch_size, recipe.published) == (30, 256, None)
    assert (recipe.optimizer, recipe.whitening) == ("muon", True)
    assert recipe.augmentation == Augmentation(translate=2, flip="alternating", rand_augment=(1, 12))
    network = {"model": papers.model, "pixels": papers.pixels, "dataset": papers.dataset}
    assert recipe == replace(shared, **network, model_arguments=papers.model_arguments)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_is_the_papers(name):
    recipe = get_recipe(name)
    assert (
        recipe.dataset, recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay, recipe.epsilon,
        recipe.clip_norm, recipe.published,
    ) == PUBLISHED[name]  # fmt: skip
    assert (recipe.schedule, recipe.decay_all, recipe.precision) == ("triangular", True, "auto")
    assert recipe.model in PRESETS
    preset = PRESETS[recipe.model]
    assert preset.pixels.size == recipe.pixels.size
    dataset = {"imagenet2012": "imagenet", "oxford_flowers102": "flowers102"}.get(recipe.dataset, recipe.dataset)
    if name != "cifar10_convmixer_25_epochs" and name != "cifar10_convmixer_100_epochs":
        assert recipe.published in [row.top1 for row in preset.published if row.dataset == dataset]


def test_augmentation_is_the_papers():
    split, convmixer = get_recipe("cifar10_splitmixer_i").augmentation, get_recipe("imagenet_convmixer_768_32")
    assert split == Augmentation(flip=True, rand_augment=(2, 12))
    assert get_recipe("cifar10_convmixer_25_epochs").augmentation == split
    assert get_recipe("cifar10_convmixer_100_epochs").augmentation == replace(
        split, color_jitter=0.2, random_erasing=0.2
    )
    assert get_recipe("food101_splitmixer_i").augmentation == replace(split, resize=230)
    assert convmixer.augmentation == Augmentation(
        crop_scale=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=True, rand_augment=(2, 27), rand_augment_std=1.5,
        rand_augment_probability=0.5, rand_augment_operations="timm", random_erasing=0.25, erasing_fill="noise",
        mixup=0.5, cutmix=0.5, label_smoothing=0.1,
    )  # fmt: skip
    long = get_recipe("cifar10_convmixer_200_epochs").augmentation
    assert long == replace(convmixer.augmentation, crop_scale=(0.75, 1.0))


def test_photos_is_for_ones_own_images():
    recipe = get_recipe("photos")
    assert (recipe.model, recipe.dataset, recipe.pixels.size) == ("splitmixer_i_256_8_p7_k7", "folder", 224)
    assert (recipe.epochs, recipe.precision, recipe.published) == (30, "auto", None)
    assert recipe.augmentation == Augmentation(flip=True, rand_augment=(2, 12), crop_scale=(0.25, 1.0))


def test_pixels_are_the_papers():
    assert get_recipe("cifar10_convmixer_25_epochs").pixels.std == (0.2471, 0.2435, 0.2616)
    assert get_recipe("cifar10_splitmixer_v").pixels.std == (0.2023, 0.1994, 0.2010)
    assert get_recipe("cifar100_convmixer").pixels == ImageSpec(32, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    assert get_recipe("flowers102_splitmixer_i").pixels.mean == (0.507, 0.487, 0.441)
    food = get_recipe("food101_splitmixer_i").pixels
    assert (food.mean, int(food.size / food.crop_fraction)) == ((0.485, 0.456, 0.406), 230)


def test_table_4_enlarges_images_for_evaluation_as_the_imagenet_runs_do():
    for name in ("cifar10_convmixer_200_epochs", "cifar10_convmixer_p8_k9"):
        pixels = get_recipe(name).pixels
        assert (pixels.size, pixels.shorter_side, pixels.interpolation) == (32, 33, "bicubic")


def test_fields_are_changed_by_name_and_text_is_read():
    settings = {"epochs": "3", "clip_norm": "None", "precision": "bfloat16", "augmentation.rand_augment": "(1, 5)"}
    recipe = get_recipe("cifar10_splitmixer_i").change({**settings, "model_arguments.dim": "64", "pixels.size": 16})
    assert (recipe.epochs, recipe.clip_norm, recipe.precision) == (3, None, "bfloat16")
    assert recipe.augmentation == Augmentation(flip=True, rand_augment=(1, 5))
    assert (recipe.model_arguments, recipe.pixels.size) == ({"dim": 64}, 16)
    assert get_recipe("cifar10_splitmixer_i").epochs == 100


def test_lists_are_tuples_as_a_run_that_resumes_reads_them():
    settings = {"augmentation.rand_augment": "[1, 5]", "pixels.mean": "[0.5, 0.4, 0.3]"}
    recipe = get_recipe("cifar10_splitmixer_i").change(settings)
    assert (recipe.augmentation.rand_augment, recipe.pixels.mean) == ((1, 5), (0.5, 0.4, 0.3))
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_survives_json(name):
    assert Recipe.from_json(get_recipe(name).to_json()) == get_recipe(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, r"A recipe has no 'epoch'; did you mean 'epochs'\?"),
        ({"augmentation.flop": True}, r"A recipe has no 'augmentation.flop'; did you mean 'augmentation.flip'\?"),
        ({"epochs.more": 3}, r"'epochs' of a recipe has no parts, got 'epochs.more'; write epochs=VALUE"),
        ({"pixels": 32}, r"'pixels' of a recipe is set part by part, got 32; its parts are pixels.size"),
        ({"epochs": 0}, r"epochs must be a whole number of at least 1, got epochs=0"),
        ({"epochs": "many"}, r"epochs must be a whole number of at least 1, got epochs='many'"),
        ({"learning_rate": "-1"}, r"learning_rate must be a positive number, got learning_rate=-1"),
        ({"weight_decay": -0.1}, r"weight_decay must be a number of at least 0"),
        ({"ema": 1.5}, r"ema must be a number in \(0, 1\)"),
        (
            {"precision": "int8"},
            r"precision must be one of 'auto', 'float32', 'float16', 'bfloat16', got .*='int8'",
        ),
        ({"optimizer": "sgd"}, r"optimizer must be one of 'adamw', 'muon', got optimizer='sgd'"),
        ({"schedule": "linear"}, r"schedule must be one of 'triangular', 'cosine'"),
        ({"accumulation": 3}, r"accumulation must divide batch_size, got accumulation=3 and batch_size=512"),
        ({"model": "splitmixer_6"}, r"There is no model named 'splitmixer_6'; did you mean"),
        ({"seed": -1}, r"seed must be a whole number of at least 0"),
        ({"limit_train": 0}, r"limit_train must be a whole number of at least 1"),
        ({"clip_norm": 0}, r"clip_norm must be a positive number"),
    ],
    ids=str,
)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        get_recipe("cifar10_splitmixer_i").change(settings)


def test_a_data_set_of_the_table_brings_its_splits_and_statistics():
    recipe = get_recipe("cifar10_splitmixer_i").change({"dataset": "flowers102", "test_split": "validation"})
    flowers = DATASETS["flowers102"]
    assert (recipe.dataset, recipe.test_split) == ("oxford_flowers102", "validation")
    assert (recipe.pixels.mean, recipe.pixels.size) == (flowers.pixels.mean, 32)
    assert get_recipe("cifar10_splitmixer_i").change({"dataset": "cifar10"}) == get_recipe("cifar10_splitmixer_i")
    for preset in PRESETS.values():
        weights = {name.partition("_")[0] for name in preset.weights}
        assert {row.dataset for row in preset.published} | weights <= set(DATASETS)


@pytest.mark.parametrize(
    "row", [None, Dataset("numbers", "svhn_cropped", 10, ImageSpec(32, (0.4,) * 3, (0.2,) * 3), test_split="extra")]
)
def test_a_new_data_set_trains_with_one_row_or_none(row, tmp_path, monkeypatch):
    write_tfds("svhn_cropped", tmp_path, {"train": 8, "test": 4, "extra": 6}, 32)
    if row is not None:
        monkeypatch.setitem(DATASETS, row.name, row)
    small = {"batch_size": 4, "epochs": 1, "model_arguments.dim": 8, "model_arguments.blocks": 1}
    recipe = get_recipe("cifar10_smoke").change({"dataset": row.name if row else "svhn_cropped", **small})
    run = fit(recipe, output_dir=tmp_path / "run", data_dir=tmp_path, download=False, verbose=0)
    assert run.metrics["recipe"]["dataset"] == "svhn_cropped"
    assert run.metrics["start"]["test_images"]["count"] == (6 if row else 4)
    assert load_trained(tmp_path / "run" / "model.keras").pixels.mean == (row.pixels if row else recipe.pixels).mean
