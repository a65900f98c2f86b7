"""One table: every network of both papers' tables, and those that they are compared with, by name.

A name is family_dim_blocks, then what differs from the family's first configuration: `p` patch size, `k` kernel size,
`r` ratio (r3_5 is 3/5), `s` segments. These first ones are the ConvMixers of its Table 1, SplitMixers of patch size 2,
kernel size 5, ratio 2/3 and two segments, and MLP-Mixers and their kin of patch size 16. Networks that timm publishes
under a name of their own, such as mixer_b16, keep it.
"""

import difflib
import fnmatch
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_mixers.layers.validation import did_you_mean
from keras_mixers.models.conv_mixer import ConvMixer
from keras_mixers.models.datasets import DATASETS, IMAGENET
from keras_mixers.models.image_spec import ImageSpec
from keras_mixers.models.mlp_mixers import MLPMixer, ResMLP, gMixer, gMLP
from keras_mixers.models.split_mixer import (
    SplitMixerI,
    SplitMixerII,
    SplitMixerIII,
    SplitMixerIV,
    SplitMixerV,
    StrideMixer,
)
from keras_mixers.weights import WeightsCard, packaged_weights, read_card

CIFAR10 = DATASETS["cifar10"].pixels
CIFAR10_SPLITMIXER = replace(CIFAR10, std=(0.2023, 0.1994, 0.2010))
FLOWERS102 = replace(DATASETS["flowers102"].pixels, crop_fraction=1.0)
IMAGENET_7_8 = replace(IMAGENET, crop_fraction=0.875)
HALVES = replace(IMAGENET_7_8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
UNIT = replace(IMAGENET_7_8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear")


@dataclass(frozen=True)
class Published:
    """A top-1 accuracy in percent that a paper or timm reports, and where."""

    dataset: str
    top1: float
    source: str
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """A configuration of one of the papers' tables.

    Attributes:
        builder: the function that makes the network.
        arguments: what it is called with.
        pixels: the images that the network is meant for.
        published: the accuracies that are reported; empty where there are none.
        weights: trained weights by data set, as `weights=` of any builder takes them; further sets of a data set have
            names that begin with its own, such as `"imagenet_miil"`.
        weights_pixels: the images of those weights, by name, that take others than `pixels`.
    """

    builder: Callable[..., keras.Model]
    arguments: Mapping[str, Any]
    pixels: ImageSpec
    published: tuple[Published, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    weights_pixels: Mapping[str, ImageSpec] = field(default_factory=dict)

    def pixels_of(self, weights: object) -> ImageSpec:
        """Returns the images of these of its weights, by name, or of the network for anything else."""
        if not isinstance(weights, str):
            return self.pixels
        card = _read_card(self.weights.get(weights))
        return ImageSpec(**card.pixels) if card else self.weights_pixels.get(weights, self.pixels)

    @property
    def family(self) -> str:
        """What figures call networks of this builder."""
        return self.builder.family

    @property
    def blocks(self) -> int:
        """Number of blocks, which some builders call depth."""
        return self.arguments[self.builder.blocks_argument]


def _read_card(source: str | None) -> WeightsCard | None:
    """Returns the card of weights that come with the package; those of the hub and other files have none."""
    is_file = source is not None and source.endswith(".safetensors") and not source.startswith("hf://")
    return read_card(source) if is_file else None


def _preset(builder, dim, blocks, patch, kernel, dataset, pixels, published, timm=None, **others) -> Preset:
    sizes = {"dim": dim, builder.blocks_argument: blocks, "kernel_size": kernel, "patch_size": patch}
    arguments = {**sizes, "num_classes": DATASETS[dataset].num_classes, **others}
    return Preset(builder, arguments, pixels, tuple(published), {dataset: f"hf://timm/{timm}"} if timm else {})


def _imagenet_convmixer(dim, depth, patch, kernel, top1, source="ConvMixer Table 2", **others) -> Preset:
    published = [Published("imagenet", top1, source)]
    return _preset(ConvMixer, dim, depth, patch, kernel, "imagenet", IMAGENET, published, **others)


def _imagenet_splitmixer(dim, blocks, kernel, *published: Published, **others) -> Preset:
    return _preset(SplitMixerI, dim, blocks, 7, kernel, "imagenet", IMAGENET, published, ratio=2 / 3, **others)


def _cifar_convmixer(dim, depth, patch, kernel, top1_by_weight_decay, *further: Published) -> Preset:
    notes = {f"weight decay {weight_decay:g}": top1 for weight_decay, top1 in top1_by_weight_decay.items()}
    published = [Published("cifar10", top1, "ConvMixer Table 4", note) for note, top1 in notes.items()]
    return _preset(ConvMixer, dim, depth, patch, kernel, "cifar10", CIFAR10, [*published, *further])


def _cifar_splitmixer(builder, source, cifar10=None, cifar100=None, **others) -> Preset:
    published = _accuracies(source, cifar10=cifar10, cifar100=cifar100)
    return _preset(builder, 256, 8, 2, 5, "cifar10", CIFAR10_SPLITMIXER, published, **others)


def _flowers_mixer(builder, source="", flowers102=None, food101=None, **others) -> Preset:
    published = _accuracies(source, flowers102=flowers102, food101=food101)
    return _preset(builder, 256, 8, 7, 7, "flowers102", FLOWERS102, published, **others)


def _accuracies(source: str, **top1_by_dataset: float | None) -> list[Published]:
    return [Published(dataset, top1, source) for dataset, top1 in top1_by_dataset.items() if top1 is not None]


def _timm_mixer(builder, dim, blocks, patch, pixels, published, weights_pixels=None) -> Preset:
    """Makes a row of {name of weights: (name on the hub, top-1 accuracy that timm reports, note)}."""
    arguments = {"dim": dim, "blocks": blocks, "patch_size": patch, "num_classes": 1000, "image_size": 224}
    reported = tuple(Published("imagenet", top1, "timm", note) for _, top1, note in published.values())
    weights = {f"imagenet{name}": f"hf://timm/{source}" for name, (source, *_) in published.items()}
    return Preset(builder, arguments, pixels, reported, weights, weights_pixels or {})


def _resmlp(dim, blocks, patch, timm, top1, distilled, in22k=None) -> Preset:
    published = {
        "": (f"{timm}.fb_in1k", top1, ""),
        "_distilled": (f"{timm}.fb_distilled_in1k", distilled, "distilled"),
    }
    if in22k is not None:
        published["_in22k"] = (f"{timm}.fb_in22k_ft_in1k", in22k, "after ImageNet-22k")
    return _timm_mixer(ResMLP, dim, blocks, patch, IMAGENET_7_8, published)


def _cifar_mlp(builder, dim, blocks, cifar10=None, cifar100=None, **others) -> Preset:
    arguments = {"dim": dim, "blocks": blocks, "patch_size": 4, "num_classes": 10, "image_size": 32, **others}
    published = [
        Published(dataset, top1, "SplitMixer Table 1", "as trained for the MDMLP paper")
        for dataset, top1 in (("cifar10", cifar10), ("cifar100", cifar100))
        if top1 is not None
    ]
    return Preset(builder, arguments, CIFAR10, tuple(published))


_SPLITMIXER_RUN = "as trained for the SplitMixer paper"

PRESETS: dict[str, Preset] = {
    # ConvMixer, Tables 1 and 2: ImageNet.
    "convmixer_1536_20": _imagenet_convmixer(1536, 20, 7, 9, 81.37, "ConvMixer Table 1", timm="convmixer_1536_20.in1k"),
    "convmixer_768_32": _imagenet_convmixer(
        768, 32, 7, 7, 80.16, "ConvMixer Table 1", activation="relu", timm="convmixer_768_32.in1k"
    ),
    "convmixer_1536_20_p7_k3": _imagenet_convmixer(1536, 20, 7, 3, 80.43),
    "convmixer_1536_20_p14_k9": _imagenet_convmixer(1536, 20, 14, 9, 78.92),
    "convmixer_1024_16_p7_k9": _imagenet_convmixer(1024, 16, 7, 9, 79.45),
    "convmixer_1024_12_p7_k8": _imagenet_convmixer(1024, 12, 7, 8, 77.75),
    "convmixer_512_16_p7_k8": _imagenet_convmixer(512, 16, 7, 8, 73.76),
    "convmixer_512_12_p7_k8": _imagenet_convmixer(512, 12, 7, 8, 72.59),
    "convmixer_768_32_p14_k3": _imagenet_convmixer(768, 32, 14, 3, 74.93, activation="relu"),
    "convmixer_1024_20_p14_k9": _imagenet_convmixer(1024, 20, 14, 9, 76.94, timm="convmixer_1024_20_ks9_p14.in1k"),
    # ConvMixer, Table 4: CIFAR-10.
    "convmixer_128_4_p1_k8": _cifar_convmixer(128, 4, 1, 8, {0: 91.26}),
    "convmixer_128_8_p1_k8": _cifar_convmixer(128, 8, 1, 8, {0: 93.83}),
    "convmixer_128_12_p1_k8": _cifar_convmixer(128, 12, 1, 8, {0: 94.83}),
    "convmixer_256_4_p1_k8": _cifar_convmixer(256, 4, 1, 8, {0: 93.37}),
    "convmixer_256_8_p1_k8": _cifar_convmixer(256, 8, 1, 8, {0: 95.60}),
    "convmixer_256_12_p1_k8": _cifar_convmixer(256, 12, 1, 8, {0: 96.39}),
    "convmixer_256_16_p1_k8": _cifar_convmixer(256, 16, 1, 8, {0: 96.74}),
    "convmixer_256_20_p1_k8": _cifar_convmixer(256, 20, 1, 8, {0: 96.67}),
    "convmixer_256_8_p1_k3": _cifar_convmixer(256, 8, 1, 3, {0: 93.61}),
    "convmixer_256_8_p1_k5": _cifar_convmixer(256, 8, 1, 5, {0: 95.19}),
    "convmixer_256_8_p1_k7": _cifar_convmixer(256, 8, 1, 7, {0: 95.80}),
    "convmixer_256_8_p1_k9": _cifar_convmixer(
        256, 8, 1, 9, {0: 95.88, 1e-1: 95.88, 1e-2: 96.03, 1e-3: 95.76, 1e-4: 95.63, 1e-5: 95.88}
    ),
    "convmixer_256_8_p1_k11": _cifar_convmixer(256, 8, 1, 11, {0: 95.70}),
    "convmixer_256_8_p1_k13": _cifar_convmixer(256, 8, 1, 13, {0: 96.04}),
    "convmixer_256_8_p1_k15": _cifar_convmixer(256, 8, 1, 15, {0: 96.08}),
    "convmixer_256_8_p2_k3": _cifar_convmixer(256, 8, 2, 3, {0: 94.08, 1e-2: 94.69}),
    "convmixer_256_8_p2_k5": _cifar_convmixer(
        256, 8, 2, 5, {0: 95.21, 1e-2: 95.26},
        Published("cifar10", 94.17, "SplitMixer Table 1", _SPLITMIXER_RUN),
        Published("cifar100", 73.92, "SplitMixer Table 1", _SPLITMIXER_RUN),
    ),
    "convmixer_256_8_p2_k7": _cifar_convmixer(256, 8, 2, 7, {0: 95.35, 1e-2: 95.25}),
    "convmixer_256_8_p2_k9": _cifar_convmixer(256, 8, 2, 9, {0: 95.00, 1e-2: 95.06}),
    "convmixer_256_8_p2_k11": _cifar_convmixer(256, 8, 2, 11, {0: 95.14, 1e-2: 95.17}),
    "convmixer_256_8_p4_k9": _cifar_convmixer(256, 8, 4, 9, {0: 92.61}),
    "convmixer_256_8_p8_k9": _cifar_convmixer(256, 8, 8, 9, {0: 85.57}),
    # SplitMixer, Tables 1, 3 and 6, Fig. 3 and Section 3.2: CIFAR-10 and CIFAR-100.
    "splitmixer_i_256_8": _cifar_splitmixer(SplitMixerI, "SplitMixer Table 3", 93.91, 72.88, ratio=2 / 3),
    "splitmixer_ii_256_8": _cifar_splitmixer(SplitMixerII, "SplitMixer Fig. 3", 92.25, 70.44, segments=2),
    "splitmixer_iii_256_8": _cifar_splitmixer(SplitMixerIII, "SplitMixer Fig. 3", 92.52, 70.89, segments=2),
    "splitmixer_iii_256_8_s4": _cifar_splitmixer(SplitMixerIII, "SplitMixer Fig. 3", segments=4),
    "splitmixer_iv_256_8": _cifar_splitmixer(SplitMixerIV, "SplitMixer Fig. 3", 93.38, 71.75, segments=2),
    "splitmixer_v_256_8": _cifar_splitmixer(SplitMixerV, "SplitMixer Table 6", 93.88, 73.68, ratio=2 / 3),
    "splitmixer_v_256_8_r3_5": _cifar_splitmixer(SplitMixerV, "SplitMixer Table 6", 93.96, 74.63, ratio=3 / 5),
    "stridemixer_256_8": _cifar_splitmixer(
        StrideMixer, "SplitMixer Section 3.2", 93.09, 71.99, channel_kernel_size=128, channel_stride=128
    ),
    # SplitMixer, Tables 1, 4 and 5: Flowers102 and Food101; most were only timed.
    "convmixer_256_8_p7_k7": _flowers_mixer(ConvMixer, "SplitMixer Table 1", 60.47, 74.59),
    "splitmixer_i_256_8_p7_k7": _flowers_mixer(SplitMixerI, "SplitMixer Table 1", 62.03, 73.56, ratio=2 / 3),
    "splitmixer_i_256_8_p7_k7_r3_5": _flowers_mixer(SplitMixerI, ratio=3 / 5),
    "splitmixer_i_256_8_p7_k7_r4_7": _flowers_mixer(SplitMixerI, ratio=4 / 7),
    "splitmixer_i_256_8_p7_k7_r5_9": _flowers_mixer(SplitMixerI, ratio=5 / 9),
    "splitmixer_i_256_8_p7_k7_r6_11": _flowers_mixer(SplitMixerI, ratio=6 / 11),
    "splitmixer_ii_256_8_p7_k7": _flowers_mixer(SplitMixerII, "SplitMixer Fig. 3", 59.33, 71.74, segments=2),
    "splitmixer_ii_256_8_p7_k7_s3": _flowers_mixer(SplitMixerII, segments=3),
    "splitmixer_ii_256_8_p7_k7_s4": _flowers_mixer(SplitMixerII, segments=4),
    "splitmixer_ii_256_8_p7_k7_s5": _flowers_mixer(SplitMixerII, segments=5),
    "splitmixer_ii_256_8_p7_k7_s6": _flowers_mixer(SplitMixerII, segments=6),
    "splitmixer_iii_256_8_p7_k7": _flowers_mixer(SplitMixerIII, "SplitMixer Fig. 3", 59.00, 72.78, segments=2),
    "splitmixer_iii_256_8_p7_k7_s4": _flowers_mixer(SplitMixerIII, segments=4),
    "splitmixer_iii_256_8_p7_k7_s8": _flowers_mixer(SplitMixerIII, segments=8),
    "splitmixer_iv_256_8_p7_k7": _flowers_mixer(SplitMixerIV, "SplitMixer Fig. 3", 61.51, 72.92, segments=2),
    "splitmixer_iv_256_8_p7_k7_s3": _flowers_mixer(SplitMixerIV, segments=3),
    "splitmixer_iv_256_8_p7_k7_s4": _flowers_mixer(SplitMixerIV, segments=4),
    "splitmixer_iv_256_8_p7_k7_s5": _flowers_mixer(SplitMixerIV, segments=5),
    # SplitMixer, Table 2: ImageNet.
    "splitmixer_i_1536_20": _imagenet_splitmixer(1536, 20, 9, Published("imagenet", 79.35, "SplitMixer Table 2")),
    "splitmixer_i_768_32": _imagenet_splitmixer(
        768, 32, 7,
        Published("imagenet", 75.05, "SplitMixer Table 2", "300 epochs"),
        Published("imagenet", 75.38, "SplitMixer Table 2", "350 epochs"),
        activation="relu",
    ),
    # MLP-Mixer, gMixer, ResMLP and gMLP as timm publishes them: ImageNet.
    "mixer_b16": _timm_mixer(
        MLPMixer, 768, 12, 16, HALVES,
        {
            "": ("mixer_b16_224.goog_in21k_ft_in1k", 76.62, "after ImageNet-21k"),
            "_miil": ("mixer_b16_224.miil_in21k_ft_in1k", 82.31, "after ImageNet-21k-P"),
        },
        {"imagenet_miil": UNIT},
    ),
    "mixer_l16": _timm_mixer(
        MLPMixer, 1024, 24, 16, HALVES, {"": ("mixer_l16_224.goog_in21k_ft_in1k", 72.08, "after ImageNet-21k")}
    ),
    "gmixer_24": _timm_mixer(gMixer, 384, 24, 16, IMAGENET_7_8, {"": ("gmixer_24_224.ra3_in1k", 78.05, "")}),
    "resmlp_12": _resmlp(384, 12, 16, "resmlp_12_224", 76.66, 77.95),
    "resmlp_24": _resmlp(384, 24, 16, "resmlp_24_224", 79.38, 80.77),
    "resmlp_36": _resmlp(384, 36, 16, "resmlp_36_224", 79.77, 81.15),
    "resmlp_big_24": _resmlp(768, 24, 8, "resmlp_big_24_224", 81.03, 83.59, 84.41),
    "gmlp_s16": _timm_mixer(gMLP, 256, 30, 16, HALVES, {"": ("gmlp_s16_224.ra3_in1k", 79.65, "")}),
    # Their CIFAR networks of SplitMixer's Table 1: found by its parameters and FLOPs, they are Mixer-S, ResMLP-S12 and
    # gMLP-Ti with patches of 4.
    "mlp_mixer_512_8_p4": _cifar_mlp(MLPMixer, 512, 8, 85.45, 55.06),
    "resmlp_384_12_p4": _cifar_mlp(ResMLP, 384, 12, 86.52, 61.40),
    "gmlp_128_30_p4": _cifar_mlp(gMLP, 128, 30, 86.79, 61.60),
    # A network of 0.3 M parameters of each kind, on 8 × 8 patches in 8 blocks, to compare them: ours.
    "mlp_mixer_64_8_p4": _cifar_mlp(MLPMixer, 64, 8),
    "resmlp_64_8_p4": _cifar_mlp(ResMLP, 64, 8),
    "gmlp_60_8_p4": _cifar_mlp(gMLP, 60, 8),
    "convmixer_176_8_p4_k5": _preset(ConvMixer, 176, 8, 4, 5, "cifar10", CIFAR10, ()),
    "splitmixer_i_264_8_p4": _preset(SplitMixerI, 264, 8, 4, 5, "cifar10", CIFAR10, (), ratio=2 / 3),
    "splitmixer_iv_250_8_p4": _preset(SplitMixerIV, 250, 8, 4, 5, "cifar10", CIFAR10, (), segments=2),
}  # fmt: skip


def register_preset(name: str, preset: Preset) -> None:
    """Adds a row of one's own to the table, for `create_model` and all else that takes names; a known one is refused.

    Example:
        >>> register_preset("convmixer_64_2", Preset(ConvMixer, {"dim": 64, "depth": 2, "num_classes": 10}, CIFAR10))
        >>> create_model("convmixer_64_2").output_shape
        (None, 10)
        >>> del PRESETS["convmixer_64_2"]
    """
    if name in PRESETS:
        raise ValueError(f"name must not be in the table yet, got name={name!r}; choose another.")
    PRESETS[name] = preset


def list_models(pattern: str | None = None) -> list[str]:
    """Returns the names of the table's models, or of those that match `pattern`, in which `*` and `?` are wildcards.

    Example:
        >>> list_models("splitmixer_v*")
        ['splitmixer_v_256_8', 'splitmixer_v_256_8_r3_5']
    """
    return [name for name in PRESETS if pattern is None or fnmatch.fnmatchcase(name, pattern)]


def get_preset(name: str) -> Preset:
    """Returns the row of the model `name`; a ValueError for an unknown one names the nearest.

    Example:
        >>> get_preset("convmixer_768_32").published[0].top1
        80.16
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=3, cutoff=0.4)
        advice = did_you_mean(name, near) if near else "keras_mixers.list_models() names them all."
        raise ValueError(f"There is no model named {name!r}; {advice}")
    preset = PRESETS[name]
    return replace(preset, weights={**preset.weights, **packaged_weights(name)})


def create_model(name: str, /, *, include_preprocessing: bool = False, **overrides: Any) -> keras.Model:
    """Makes the network that the table calls `name`.

    Args:
        name: one of `list_models()`.
        include_preprocessing: whether the model itself normalises pixels from 0 to 255, as with `preprocessing=True`.
            Otherwise `preprocess_input` or the pipelines of `keras_mixers.data` do it before.
        **overrides: arguments of the network's builder that differ from the table, such as `num_classes`. `weights`
            may also name one of `get_preset(name).weights`, as in `weights="imagenet"`, which is downloaded, or
            `weights="cifar10"`, which comes with the package. `preprocessing` may be True for the preset's statistics,
            or False.

    Returns:
        A functional `keras.Model`, randomly initialised unless `weights` are given. Its `pixels` are the preset's, or
        those of the named weights if they take others (`"imagenet_miil"` of mixer_b16), in the size of `input_shape`
        (its longer side) if that is given. Dimensions and kernels that differ from the preset are part of its name, as
        in `splitmixer_i_256_8_dim_64`.

    Raises:
        ValueError: if there is no such model, or an argument is not as its builder takes it.
        TypeError: if its builder has no such argument.
        OSError: if there is no such file of weights, or it cannot be downloaded.

    Example:
        >>> create_model("splitmixer_i_256_8", num_classes=100).output_shape
        (None, 100)
    """
    preset = get_preset(name)
    weights, card = overrides.get("weights"), None
    pixels = preset.pixels_of(weights)
    if isinstance(weights, str) and weights.isidentifier():
        if weights not in preset.weights:
            known = ", ".join(map(repr, preset.weights)) or "none yet"
            raise ValueError(
                f"weights of {name!r} by name are {known}, got weights={weights!r}; a path or a name on the hub such "
                "as 'hf://timm/convmixer_768_32.in1k' serves as well."
            )
        overrides["weights"] = preset.weights[weights]
        card = _read_card(preset.weights[weights])
    preprocessing = overrides.get("preprocessing")
    preprocessing = include_preprocessing if preprocessing is None else preprocessing
    if isinstance(preprocessing, bool):
        overrides["preprocessing"] = pixels if preprocessing else None
    changes = [
        f"_{key}_{overrides[key]:g}"
        for key, value in preset.arguments.items()
        if key != "num_classes" and isinstance(overrides.get(key), numbers.Real) and overrides[key] != value
    ]
    model = preset.builder(**{**preset.arguments, "name": name + "".join(changes), **overrides})
    if model.pixels is None:
        model.pixels = pixels.resized(model.image_sides)
    if card is not None and not overrides.get("new_head"):
        model.class_names = card.class_names
    return model


def preprocess_input(
    images: np.ndarray | Sequence[np.ndarray],
    name: str,
    *,
    weights: str | None = None,
    normalize: bool = True,
    data_format: str | None = None,
) -> np.ndarray:
    """Makes of photographs a batch for the network `name`, as its preset's `ImageSpec` says.

    The shorter side is resized to size / crop_fraction, the square at the centre is cut out, and its pixels become
    (x / 255 - mean) / std.

    Args:
        images: images of any size, (height, width, 3) each, values from 0 to 255.
        name: one of `list_models()`.
        weights: those of the network's weights, by name, that the images are for; `"imagenet_miil"` of mixer_b16 takes
            other statistics than the network's first weights.
        normalize: False leaves pixels from 0 to 255, for models made with `include_preprocessing=True`.
        data_format: layout of the batch, `"channels_last"`, `"channels_first"` or None for Keras's setting.

    Returns:
        float32 (batch, size, size, 3), or (batch, 3, size, size) if channels first.

    Raises:
        ValueError: if there is no such model, or an image or the data format is not as above.

    Example:
        >>> photograph = np.zeros((300, 400, 3), "uint8")
        >>> preprocess_input([photograph], "convmixer_768_32", data_format="channels_last").shape
        (1, 224, 224, 3)
    """
    return get_preset(name).pixels_of(weights).preprocess(images, normalize=normalize, data_format=data_format)
