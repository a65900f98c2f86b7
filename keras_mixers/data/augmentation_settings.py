"""What happens to a training batch, as data: reading a recipe needs no TensorFlow."""

import dataclasses
from typing import Any

from keras_mixers.layers.validation import lists_to_tuples

# The steps that `layers` replace.
REPLACED = ("translate", "flip", "rand_augment", "color_jitter", "random_erasing", "mixup", "cutmix")
MAX_MAGNITUDE = 30


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _is_range(value: Any) -> bool:
    return _is_pair(value) and 0 < value[0] <= value[1]


SHARE = (lambda value: 0 <= value <= 1, "from 0 to 1")
NOT_NEGATIVE = (lambda value: value >= 0, "0 or more")
PIXELS = (lambda value: isinstance(value, int) and value >= 0, "a whole number of pixels, 0 or more")
# What holds for each field, and how a refusal says it.
RULES = {
    "crop_scale": (
        lambda value: value is None or (_is_range(value) and value[1] <= 1),
        "(smallest, largest) with 0 < smallest <= largest <= 1, or None",
    ),
    "crop_ratio": (_is_range, "(smallest, largest) with 0 < smallest <= largest"),
    "resize": (lambda value: value is None or value >= 1, "at least 1 pixel, or None"),
    "translate": PIXELS,
    "flip": (lambda value: value in (True, False, "alternating"), 'True, False or "alternating"'),
    "rand_augment": (
        lambda value: value is None or (_is_pair(value) and value[0] >= 1 and 0 <= value[1] <= MAX_MAGNITUDE),
        f"(n, m) with n at least 1 and m from 0 to {MAX_MAGNITUDE}, or None",
    ),
    "rand_augment_std": NOT_NEGATIVE,
    "rand_augment_probability": SHARE,
    "rand_augment_operations": (lambda value: value in ("torchvision", "timm"), '"torchvision" or "timm"'),
    "color_jitter": SHARE,
    "random_erasing": SHARE,
    "erasing_fill": (lambda value: value in ("mean", "noise"), '"mean" or "noise"'),
    "mixup": NOT_NEGATIVE,
    "cutmix": NOT_NEGATIVE,
    "mix_probability": SHARE,
    "label_smoothing": SHARE,
    "layers": (lambda value: isinstance(value, (tuple, list)), "a tuple of names of layers"),
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A recipe of augmentation, applied in the order of its fields. By default nothing is done.

    Args:
        crop_scale: range of the area of a random crop, as shares of the image; the crop is resized to the image size.
            None takes the whole shorter side, and a random place along the longer one.
        crop_ratio: range of the crop's width / height.
        resize: length in pixels that the shorter side is resized to before a random crop of the image size
            ("resize 230, random crop 224"). None resizes it to the image size. Not together with `crop_scale`.
        translate: largest shift in pixels along each axis; the reflected image fills what is uncovered. 0 for none.
        flip: whether half of the images are mirrored. "alternating" mirrors one half in the epochs 0, 2, ..., the other
            in the epochs 1, 3, ...: each pair of epochs shows every image both ways.
        rand_augment: (n, m), the number of operations per image and their magnitude from 0 to 30. timm counts from 0 to
            10: its m9 is 27 here.
        rand_augment_std: standard deviation of the magnitude, on the same scale.
        rand_augment_probability: that of each operation to be carried out: 1 in torchvision, 0.5 in timm.
        rand_augment_operations: "torchvision" (14; what lies beyond an image is black) or "timm" (15; it has the mean
            colour).
        color_jitter: brightness, contrast and saturation are each scaled by a factor within 1 +- this.
        random_erasing: probability that a rectangle of an image (2-33 % of its area, ratio 0.3-3.3) is erased.
        erasing_fill: "mean" (the data set's mean colour) or "noise" (normal noise per pixel).
        mixup: alpha of MixUp, which mixes images and labels by one share per batch, from Beta(alpha, alpha).
        cutmix: alpha of CutMix: a rectangle comes from another image, and labels are mixed by the exact area.
        mix_probability: probability that a batch is mixed; with both `mixup` and `cutmix`, by either equally often.
        label_smoothing: share of the label that is spread over all classes.
        layers: preprocessing layers of Keras or KerasCV that replace all steps from `translate` to `mix_probability`,
            such as `("keras_cv.RandAugment(value_range=(0, 255))", "keras_cv.MixUp()")`. They draw from generators of
            their own: a seed does not repeat their batches.

    Raises:
        ValueError: if a field is out of its range.

    Example:
        >>> Augmentation(flip=True, rand_augment=(2, 12)).rand_augment
        (2, 12)
        >>> Augmentation(random_erasing=25)
        Traceback (most recent call last):
        ValueError: random_erasing must be from 0 to 1, got random_erasing=25.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resize: int | None = None
    translate: int = 0
    flip: bool | str = False
    rand_augment: tuple[int, float] | None = None
    rand_augment_std: float = 0.0
    rand_augment_probability: float = 1.0
    rand_augment_operations: str = "torchvision"
    color_jitter: float = 0.0
    random_erasing: float = 0.0
    erasing_fill: str = "mean"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    label_smoothing: float = 0.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        for name, (holds, rule) in RULES.items():
            if not holds(value := getattr(self, name)):
                raise ValueError(f"{name} must be {rule}, got {name}={value!r}.")
        if self.crop_scale and self.resize:
            raise ValueError(
                f"resize and crop_scale are two ways to crop: set one of them, got resize={self.resize} and "
                f"crop_scale={self.crop_scale}."
            )
        if self.layers:
            from keras_mixers.data.preprocessing_layers import read_layer  # imports TensorFlow

            for layer in self.layers:
                read_layer(layer)
            self.check_gives_way()

    def check_gives_way(self) -> None:
        """Refuses steps that layers are to replace."""
        if beside := ", ".join(f"{name}={getattr(self, name)!r}" for name in REPLACED if getattr(self, name)):
            raise ValueError(f"layers replace the other steps, got {beside} beside them; leave those out.")
