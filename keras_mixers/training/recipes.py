"""One table: the training runs of both papers, by name.

A name is the data set and the network, followed by what differs from the first run of its kind. Where the papers leave
something open it says so here: Flowers102 is augmented as Food101 is, and ConvMixer's CIFAR-10 run with MixUp and
CutMix takes the weight decay of its best row of Table 4.
"""

from dataclasses import replace
from typing import Any

from keras_mixers.data import Augmentation
from keras_mixers.layers.validation import did_you_mean
from keras_mixers.models import get_preset
from keras_mixers.models.datasets import DATASETS
from keras_mixers.training.recipe import Recipe

# timm's magnitude of 9 is on a scale to 10.
CONVMIXER_AUGMENTATION = Augmentation(
    crop_scale=(0.08, 1.0), flip=True, rand_augment=(2, 27), rand_augment_std=1.5, random_erasing=0.25,
    erasing_fill="noise", mixup=0.5, cutmix=0.5, label_smoothing=0.1,
)  # fmt: skip
SPLITMIXER_AUGMENTATION = Augmentation(flip=True, rand_augment=(2, 12))
SPLITMIXER_PHOTOGRAPHS = replace(SPLITMIXER_AUGMENTATION, resize=230)

CIFAR10_SPLITMIXER = get_preset("splitmixer_i_256_8").pixels  # its authors normalise with other deviations


def _recipe(model: str, dataset: str, augmentation: Augmentation, **fields: Any) -> Recipe:
    """Makes a recipe for a data set of the table."""
    row = DATASETS[dataset]
    start = Recipe(model, row.tfds, row.pixels, augmentation, row.train_split, row.test_split, precision="auto")
    return replace(start, **fields)


_CIFAR10_CONVMIXER = _recipe(
    "convmixer_256_8_p2_k5", "cifar10", SPLITMIXER_AUGMENTATION, epochs=25, published=92.60,
    source="ConvMixer's authors",
)  # fmt: skip
_CIFAR10 = _recipe("splitmixer_i_256_8", "cifar10", SPLITMIXER_AUGMENTATION, pixels=CIFAR10_SPLITMIXER, clip_norm=1.0)
_CIFAR100 = _recipe(
    "splitmixer_i_256_8", "cifar100", SPLITMIXER_AUGMENTATION, clip_norm=1.0, model_arguments={"num_classes": 100}
)
_FLOWERS102 = _recipe(
    "splitmixer_i_256_8_p7_k7", "flowers102", SPLITMIXER_PHOTOGRAPHS, batch_size=64, learning_rate=0.03,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
_FOOD101 = _recipe(
    "splitmixer_i_256_8_p7_k7", "food101", SPLITMIXER_PHOTOGRAPHS, batch_size=128, learning_rate=0.01, clip_norm=1.0,
    model_arguments={"num_classes": 101},
)  # fmt: skip
_IMAGENET = _recipe(
    "convmixer_1536_20", "imagenet", CONVMIXER_AUGMENTATION, epochs=150, batch_size=640, learning_rate=0.01,
    weight_decay=2e-5, epsilon=1e-3, clip_norm=1.0,
)  # fmt: skip
# The same on CIFAR-10, without random crops of less than three quarters.
_CIFAR10_AS_IMAGENET = _recipe(
    "convmixer_256_8_p2_k5", "cifar10", replace(CONVMIXER_AUGMENTATION, crop_scale=(0.75, 1.0)), epochs=200,
    batch_size=640, learning_rate=0.01, epsilon=1e-3, clip_norm=1.0, source="ConvMixer Table 4",
)  # fmt: skip


def _of_paper(start: Recipe, published_on: str, rows: dict[str, str]) -> dict[str, Recipe]:
    """Makes a recipe of each row, (name of the recipe: name of the model), with the accuracy that the table has."""
    recipes = {}
    for name, model in rows.items():
        of_splitmixer = [
            published
            for published in get_preset(model).published
            if published.dataset == published_on and published.source.startswith("SplitMixer")
        ]
        recipes[f"{published_on}_{name}"] = replace(
            start, model=model, published=of_splitmixer[0].top1, source=of_splitmixer[0].source
        )
    return recipes


_CIFAR_MODELS = {
    "convmixer": "convmixer_256_8_p2_k5",
    "splitmixer_i": "splitmixer_i_256_8",
    "splitmixer_ii": "splitmixer_ii_256_8",
    "splitmixer_iii": "splitmixer_iii_256_8",
    "splitmixer_iv": "splitmixer_iv_256_8",
    "splitmixer_v": "splitmixer_v_256_8",
    "splitmixer_v_r3_5": "splitmixer_v_256_8_r3_5",
    "stridemixer": "stridemixer_256_8",
}
_PHOTOGRAPH_MODELS = {
    "convmixer": "convmixer_256_8_p7_k7",
    "splitmixer_i": "splitmixer_i_256_8_p7_k7",
    "splitmixer_ii": "splitmixer_ii_256_8_p7_k7",
    "splitmixer_iii": "splitmixer_iii_256_8_p7_k7",
    "splitmixer_iv": "splitmixer_iv_256_8_p7_k7",
}


RECIPES: dict[str, Recipe] = {
    # ConvMixer's authors on CIFAR-10: 25 epochs, 100 (over 94 %), and 200 with MixUp and CutMix.
    "cifar10_convmixer_25_epochs": _CIFAR10_CONVMIXER,
    "cifar10_convmixer_100_epochs": replace(
        _CIFAR10_CONVMIXER,
        epochs=100,
        augmentation=replace(SPLITMIXER_AUGMENTATION, color_jitter=0.2, random_erasing=0.2),
        published=94.0,
    ),
    "cifar10_convmixer_200_epochs": replace(_CIFAR10_AS_IMAGENET, weight_decay=1e-2, published=95.26),
    # Patches of 8: a sixteenth of the positions.
    "cifar10_convmixer_p8_k9": replace(
        _CIFAR10_AS_IMAGENET, model="convmixer_256_8_p8_k9", weight_decay=0.0, published=85.57
    ),
    # SplitMixer's paper.
    **_of_paper(_CIFAR10, "cifar10", _CIFAR_MODELS),
    **_of_paper(_CIFAR100, "cifar100", _CIFAR_MODELS),
    **_of_paper(_FLOWERS102, "flowers102", _PHOTOGRAPH_MODELS),
    **_of_paper(_FOOD101, "food101", _PHOTOGRAPH_MODELS),
    # ImageNet.
    "imagenet_convmixer_1536_20": replace(_IMAGENET, published=81.37, source="ConvMixer Table 1"),
    "imagenet_convmixer_768_32": replace(
        _IMAGENET, model="convmixer_768_32", epochs=300, published=80.16, source="ConvMixer Table 1"
    ),
    "imagenet_convmixer_1024_20": replace(
        _IMAGENET, model="convmixer_1024_20_p14_k9", published=76.94, source="ConvMixer Table 2"
    ),
    "imagenet_splitmixer_i_1536_20": replace(
        _IMAGENET, model="splitmixer_i_1536_20", published=79.35, source="SplitMixer Table 2"
    ),
    "imagenet_splitmixer_i_768_32": replace(
        _IMAGENET, model="splitmixer_i_768_32", epochs=300, published=75.05, source="SplitMixer Table 2"
    ),
    # Photographs of one's own, in a folder: train photos --images FOLDER.
    "photos": Recipe(
        "splitmixer_i_256_8_p7_k7",
        "folder",
        DATASETS["imagenet"].pixels,
        replace(SPLITMIXER_AUGMENTATION, crop_scale=(0.25, 1.0)),
        epochs=30,
        batch_size=64,
        learning_rate=0.01,
        clip_norm=1.0,
        precision="auto",
    ),
    # A short recipe, for two cores as well: docs/training.md has what each of its ingredients is worth.
    **{
        f"{dataset}_{name}_fast": replace(
            start,
            model=model,
            epochs=30,
            optimizer="muon",
            augmentation=Augmentation(translate=2, flip="alternating"),
        )
        for dataset, start in (("cifar10", _CIFAR10), ("cifar100", _CIFAR100))
        for name, model in _CIFAR_MODELS.items()
    },
    # The same path in small: two cores take minutes.
    "cifar10_smoke": replace(
        _CIFAR10,
        model_arguments={"dim": 128, "blocks": 4, "patch_size": 4},
        augmentation=Augmentation(flip=True),
        limit_train=10_000,
        limit_test=2_000,
        epochs=8,
        batch_size=128,
        learning_rate=0.01,
    ),
}


def get_recipe(name: str) -> Recipe:
    """Returns the recipe that `name` names.

    Raises:
        ValueError: if there is none; the message names the nearest.

    Example:
        >>> get_recipe("cifar10_splitmixer_v").published
        93.88
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe named {name!r}; {did_you_mean(name, RECIPES)}")
    return RECIPES[name]
