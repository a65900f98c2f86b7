"""One table of data sets. One without a row trains too, by its TFDS name, with the recipe's splits and statistics."""

from dataclasses import dataclass, replace

from keras_mixers.models.image_spec import ImageSpec

IMAGENET = ImageSpec(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_fraction=0.96)


@dataclass(frozen=True)
class Dataset:
    """What presets, recipes and weights know of a TFDS data set.

    Args:
        name: its name here.
        tfds: its name in TFDS.
        num_classes: number of classes.
        pixels: size and statistics of its images.
        train_split: TFDS split to train on.
        test_split: TFDS split to evaluate.
        class_names: names of the classes, for weights and for copies of the data set that only number them.
    """

    name: str
    tfds: str
    num_classes: int
    pixels: ImageSpec
    train_split: str = "train"
    test_split: str = "test"
    class_names: tuple[str, ...] | None = None


DATASETS = {
    row.name: row
    for row in (
        Dataset(
            "cifar10",
            "cifar10",
            10,
            ImageSpec(32, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
            class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        Dataset("cifar100", "cifar100", 100, ImageSpec(32, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))),
        # Photographs: evaluation resizes to 230 pixels, as training does, and takes the centre.
        Dataset(
            "flowers102", "oxford_flowers102", 102, ImageSpec(224, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276), 0.9739)
        ),
        Dataset("food101", "food101", 101, replace(IMAGENET, crop_fraction=0.9739), test_split="validation"),
        Dataset("imagenet", "imagenet2012", 1000, IMAGENET, test_split="validation"),
    )
}


def find_dataset(name: str) -> Dataset | None:
    """Returns the row of a data set, by its own name or TFDS's; None if it has none."""
    return next((row for row in DATASETS.values() if name in (row.name, row.tfds)), None)
