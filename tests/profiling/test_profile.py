"""Counts: the published networks, ablations by hand, the NumPy reference's own products, the table, refusals."""

import dataclasses
import math
import re

import keras
import numpy as np
import pytest
import reference_counts
from small_networks import BUILDERS, MLP_BUILDERS, for_all_builders, small

import keras_mixers
from keras_mixers import layers
from keras_mixers.layers import segment_spans
from keras_mixers.profiling import LayerProfile, Profile, profile, without_values

pytestmark = pytest.mark.backend_independent
LAST = {"data_format": "channels_last"}


def images_of(model, height, width):
    """Give the shape of an image of this size in the model's data format."""
    sides = iter((height, width))
    return tuple(channels or next(sides) for channels in model.input_shape[1:])


def counts(model, side):
    found = profile(model, images_of(model, side, side))
    return found.params, found.macs, found.published_flops


def isotropic(*arguments, spatial=None, channel=None, **options):
    def factory(make):
        return make and (lambda block, **shared: make(**shared))

    return keras_mixers.IsotropicMixer(
        *arguments, spatial_mixer=factory(spatial), channel_mixer=factory(channel), **options
    )


def one_d_and_full(dim, blocks, kernel_size, patch_size, num_classes):
    """SplitMixer's 1D spatial mixing with ConvMixer's channel mixing."""
    mixers = {"spatial": lambda **shared: layers.SpatialMixer1D(kernel_size, **shared), "channel": layers.ChannelMixer}
    return isotropic(dim, blocks, patch_size, num_classes, **mixers)


# Trainable parameters, MACs and published FLOPs with 10 classes, 32 x 32, p 2, k 5; then parameters and MACs with 102
# classes, 224 x 224, p 7, k 7.
OF_256_8 = {
    "ConvMixer": (keras_mixers.ConvMixer, {}, (594_186, 148_113_920, 152_570_368), (701_542, 678_192_640)),
    "I 2/3": (keras_mixers.SplitMixerI, {"ratio": 2 / 3}, (275_834, 65_219_072, 71_772_672), (342_230, 304_670_208)),
    "II s 2": (keras_mixers.SplitMixerII, {"segments": 2}, (175_370, 39_586_304, 46_139_904), (241_766, 202_139_136)),
    "III s 2": (keras_mixers.SplitMixerIII, {"segments": 2}, (175_370, 73_140_736, 79_694_336), (241_766, 336_356_864)),
    "III s 4": (keras_mixers.SplitMixerIII, {"segments": 4}, (76_554, 39_586_304, 46_139_904), None),
    "IV s 2": (keras_mixers.SplitMixerIV, {"segments": 2}, (307_466, 73_140_736, 79_694_336), (373_862, 336_356_864)),
    "V 2/3": (keras_mixers.SplitMixerV, {"ratio": 2 / 3}, (508_394, 124_406_272, 130_959_872), (574_790, 541_419_008)),
    "1D and full": (one_d_and_full, {}, (569_610, 140_249_600, 146_803_200), (636_006, 604_792_320)),
    "3D s 2": (
        keras_mixers.StrideMixer,
        {"channel_kernel_size": 128, "channel_stride": 128},
        (175_370, 73_140_736, 79_694_336),
        None,
    ),
}

OF_IMAGENET = {
    "convmixer_1536_20": (51_625_960, 51_099_168_768),
    "convmixer_768_32": (21_110_248, 20_676_851_712),
    "convmixer_1024_20_p14_k9": (24_383_464, 5_948_547_072),
    "convmixer_1536_20_p7_k3": (49_414_120, 48_834_244_608),
    "convmixer_1536_20_p14_k9": (52_303_336, 12_949_352_448),
    "convmixer_1024_16_p7_k9": (19_381_224, 18_693_988_352),
    "convmixer_1024_12_p7_k8": (14_621_672, 13_845_372_928),
    "convmixer_512_16_p7_k8": (5_357_544, 4_909_420_544),
    "convmixer_512_12_p7_k8": (4_165_608, 3_701_460_992),
    "convmixer_768_32_p14_k3": (20_465_896, 5_004_834_816),
    "splitmixer_i_1536_20": (23_558_120, 22_273_814_528),
    "splitmixer_i_768_32": (9_829_864, 9_058_629_632),
    # Parameters as timm's own networks have them.
    "mixer_b16": (59_880_472, 12_601_767_936),
    "mixer_l16": (208_196_168, 44_547_678_208),
    "gmixer_24": (24_721_096, 5_260_434_432),
    "resmlp_12": (15_350_872, 3_009_739_776),
    "resmlp_24": (30_020_680, 5_961_292_800),
    "resmlp_36": (44_690_488, 8_912_845_824),
    "resmlp_big_24": (129_138_280, 100_230_739_968),
    "gmlp_s16": (19_422_656, 4_392_060_928),
}


@pytest.mark.parametrize("network", OF_256_8)
def test_counts_what_the_papers_networks_have(network):
    builder, arguments, small, large = OF_256_8[network]
    assert counts(without_values(builder, 256, 8, 5, 2, 10, **arguments), 32) == small
    if large is not None:
        assert counts(without_values(builder, 256, 8, 7, 7, 102, **arguments), 224)[:2] == large


@pytest.fixture(scope="module")
def every_preset():
    return without_values(lambda: {name: keras_mixers.create_model(name) for name in keras_mixers.list_models()})


def test_counts_what_the_imagenet_networks_have(every_preset):
    assert {name: counts(every_preset[name], 224)[:2] for name in OF_IMAGENET} == OF_IMAGENET


def side_of(name):
    """Give a side of images that the network takes: those that mix a fixed number of patches take theirs alone."""
    return (
        224
        if "image_size" not in keras_mixers.get_preset(name).arguments
        else keras_mixers.get_preset(name).pixels.size
    )


def test_parameters_are_those_that_train_in_every_model_of_the_table(every_preset):
    for name, model in every_preset.items():
        found = profile(model, images_of(model, side_of(name), side_of(name)))
        assert found.params == sum(math.prod(weight.shape) for weight in model.trainable_weights), name


def test_totals_are_the_sums_of_the_layers(every_preset):
    for name, model in every_preset.items():
        found = profile(model, images_of(model, side_of(name), side_of(name)))
        assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers], name
        assert [layer.kind for layer in found.layers] == [type(layer).__name__ for layer in model.layers], name
        for count in ("params", "macs", "published_flops"):
            assert getattr(found, count) == sum(getattr(layer, count) for layer in found.layers), name


def test_weights_that_do_not_train_are_no_parameters():
    model = keras_mixers.SplitMixerI(8, 1)
    model.get_layer("patch_embed").trainable = False
    found = profile(model, images_of(model, 8, 8))
    assert found.layers[1].params == 0
    assert found.params == sum(math.prod(weight.shape) for weight in model.trainable_weights)


# Ablations by hand: h 12, 2 blocks, k 3, p 2, 5 classes and images of 8 x 10, hence 4 x 5 patches.
H, BLOCKS, K, P, CLASSES, AT = 12, 2, 3, 2, 5, 4 * 5
EMBED, HEAD = P * P * 3 * H, H * CLASSES
NORM = 2 * H  # gamma and beta
ONE_D = {"spatial": lambda **shared: layers.SpatialMixer1D(K, **shared)}
TWO_D = {"spatial": lambda **shared: layers.SpatialMixer2D(K, **shared)}
FULL = {"channel": layers.ChannelMixer}


def split(**arguments):
    return {"channel": lambda **shared: layers.ChannelSplitMixer(**arguments, **shared)}


# What a block adds, in parameters and in products at each patch, and its norms.
ABLATIONS = {
    "no spatial mixer": (FULL, H * H + H + NORM, H * H, 1),
    "no channel mixer": (ONE_D, 2 * (K * H + H + NORM), 2 * K * H, 2),
    "neither": ({}, 0, 0, 0),
    "2D and full": ({**TWO_D, **FULL}, (K * K * H + H + NORM) + (H * H + H + NORM), K * K * H + H * H, 2),
    "overlapping segments": (split(segments=3, ratio=1 / 2), 3 * (6 * 6 + 6) + NORM, 3 * 6 * 6, 1),
    "overlapping segments, shared": (split(segments=3, ratio=1 / 2, shared=True), 6 * 6 + 6 + NORM, 3 * 6 * 6, 1),
    "one segment of the channels": (split(segments=1, ratio=2 / 3), 8 * 8 + 8 + NORM, 8 * 8, 1),
    "segments with a remainder": (split(segments=5), 4 * (2 * 2 + 2) + (4 * 4 + 4) + NORM, 4 * 2 * 2 + 4 * 4, 1),
    "one of the segments a block": (split(segments=3, block=1), 4 * 4 + 4 + NORM, 4 * 4, 1),
    "segments, shared and shuffled": (split(segments=4, shared=True, shuffle=True), 3 * 3 + 3 + NORM, 4 * 3 * 3, 1),
    "3D convolution, overlapping windows": (
        {"channel": lambda **shared: layers.ChannelStrideMixer(6, stride=2, **shared)},  # 4 windows, 3 filters
        3 * 6 + 3 + NORM,
        4 * 3 * 6,
        1,
    ),
}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablations_by_hand(ablation):
    mixers, params, products, norms = ABLATIONS[ablation]
    model = isotropic(H, BLOCKS, P, CLASSES, **mixers, **LAST)
    found = profile(model, (8, 10, 3))
    assert found.params == (EMBED + H + NORM) + BLOCKS * params + (HEAD + CLASSES)
    assert found.macs == AT * EMBED + BLOCKS * AT * products + HEAD
    assert found.published_flops == found.macs + 4 * (1 + BLOCKS * norms) * AT * H


def test_mlp_mixers_by_hand():
    """d = 12 channels, S = 4 · 5 patches, 2 blocks: norms, kernels and biases, and scales of ResMLP."""
    d, s = 12, 4 * 5
    mlp = {hidden: 2 * d * hidden + hidden + d for hidden in (4 * d, 6 * d)}
    stem_and_head = (P * P * 3 * d + d) + (d * CLASSES + CLASSES)
    blocks = {  # parameters, multiply-accumulates
        "MLPMixer": (2 * 2 * d + (2 * s * 6 + 6 + s) + mlp[4 * d], 2 * s * 6 * d + 2 * s * d * 4 * d),
        "gMixer": (
            2 * 2 * d + (s * 12 + 12 + 6 * s + s) + (d * 4 * d + 4 * d + 2 * d * d + d),
            18 * s * d + s * (4 * d * d + 2 * d * d),
        ),
        "ResMLP": (2 * 2 * d + (s * s + s) + mlp[4 * d] + 2 * d, s * s * d + 2 * s * d * 4 * d),
        "gMLP": (
            2 * d + (6 * d * d + 6 * d) + 2 * 3 * d + (s * s + s) + (3 * d * d + d),
            s * 9 * d * d + s * s * 3 * d,
        ),
    }
    for builder, (params, macs) in blocks.items():
        found = profile(small(builder))
        assert found.params == stem_and_head + 2 * params + 2 * d, builder
        assert found.macs == s * P * P * 3 * d + 2 * macs + d * CLASSES, builder
        assert found.published_flops == found.macs, builder


def test_norms_by_hand():
    """Without batch norms the published count is the MACs; a layer norm has its parameters still."""
    macs = AT * EMBED + BLOCKS * AT * (2 * K * H + H * H) + HEAD
    params = (EMBED + H) + BLOCKS * (2 * (K * H + H) + H * H + H) + (HEAD + CLASSES)
    for normalization, norm in (("batch", NORM), ("layer", NORM), (None, 0)):
        model = isotropic(H, BLOCKS, P, CLASSES, **ONE_D, **FULL, normalization=normalization, **LAST)
        found = profile(model, (8, 10, 3))
        assert found.macs == macs
        assert found.params == params + (1 + 3 * BLOCKS) * norm
        batch_normed = (1 + 3 * BLOCKS) * AT * H if normalization == "batch" else 0
        assert found.published_flops == macs + 4 * batch_normed


@pytest.mark.parametrize(
    ("patch", "patches"),
    [
        (layers.PatchEmbed(H, 4, stride=2, **LAST), 4 * 5),  # (11 - 4) // 2 + 1 and (12 - 4) // 2 + 1
        (layers.PatchEmbed(H, 4, **LAST), 2 * 3),  # the last 3 rows fill no patch
        (layers.PatchEmbed(H, 4, padding="same", **LAST), 3 * 3),  # padded, they do
        (layers.PatchEmbed(H, 4, stride=3, padding="same", **LAST), 4 * 4),
    ],
)
def test_patches_by_hand(patch, patches):
    image = keras.Input((11, 12, 3))
    found = profile(keras.Model(image, patch(image)))
    assert found.params == 4 * 4 * 3 * H + H + NORM
    assert found.macs == patches * 4 * 4 * 3 * H
    assert found.published_flops == found.macs + 4 * patches * H


def test_without_the_top_there_is_no_head():
    for pooling, shape in (("avg", (12,)), ("max", (12,)), (None, (4, 5, 12))):
        model = keras_mixers.SplitMixerI(12, 1, include_top=False, pooling=pooling, **LAST)
        found = profile(model, (8, 10, 3))
        assert found.layers[-1].output_shape == shape
        assert found.macs == AT * (EMBED + 2 * 5 * H + 8 * 8)


def test_what_acts_in_training_only_costs_nothing():
    model = keras_mixers.ConvMixer(H, BLOCKS, K, P, CLASSES, drop_path_rate=0.2, dropout_rate=0.5, **LAST)
    found = profile(model, (8, 10, 3))
    assert found.macs == profile(keras_mixers.ConvMixer(H, BLOCKS, K, P, CLASSES, **LAST), (8, 10, 3)).macs
    dropout = found.layers[-2]
    assert (dropout.name, dropout.macs, dropout.params) == ("head_dropout", 0, 0)


def uneven(builder, **options):
    """Make a network that pads kernels on one side more than on the other, and whose patches leave pixels over."""
    sides = (3, 11, 16) if options.get("data_format") == "channels_first" else (11, 16, 3)
    others = {"input_shape": sides} if builder in MLP_BUILDERS else {"kernel_size": 4}
    return small(builder, **{"patch_size": 3, **others, **options})


@for_all_builders
def test_both_data_formats_cost_the_same(builder):
    last, first = (without_values(uneven, builder, data_format=f"channels_{order}") for order in ("last", "first"))
    found, mirrored = profile(last, (11, 16, 3)), profile(first, (3, 11, 16))
    image, transposed, *layers = mirrored.layers
    assert image.output_shape == (3, 11, 16)
    assert transposed == LayerProfile("to_channels_last", "Permute", (11, 16, 3), 0, 0, 0)
    assert layers == list(found.layers[1:])


def other_mixers(**arguments):
    return isotropic(H, 1, 3, CLASSES, **ONE_D, **split(**arguments), **LAST)


MULTIPLIED = {
    **{builder: (lambda builder=builder: uneven(builder)) for builder in (*BUILDERS, *MLP_BUILDERS)},
    "MLP-Mixer, batch norm": lambda: uneven("MLPMixer", normalization="batch", final_normalization="layer"),
    "ConvMixer, odd k": lambda: uneven("ConvMixer", kernel_size=5, patch_size=2),
    "overlapping patches": lambda: uneven("SplitMixerI", patch_size=4, patch_stride=3),
    "layer norm": lambda: uneven("SplitMixerI", normalization="layer"),
    "no norm": lambda: uneven("SplitMixerI", normalization=None, activation="relu"),
    "three overlapping segments": lambda: other_mixers(segments=3, ratio=0.5),
    "shared overlapping segments": lambda: other_mixers(segments=2, ratio=0.7, shared=True),
    "one shared segment a block": lambda: other_mixers(segments=3, block=2, shared=True),
    "shuffled segments": lambda: other_mixers(segments=4, shuffle=True),
}


@pytest.mark.parametrize("network", MULTIPLIED)
def test_counts_what_the_reference_multiplies(network, rng, monkeypatch):
    model = MULTIPLIED[network]()
    image = rng.standard_normal((1, 11, 16, 3)).astype("float32")
    output, products, normalized = reference_counts.run(model, image, monkeypatch)
    found = profile(model, (11, 16, 3))
    assert found.macs == products
    assert found.published_flops == products + 4 * normalized
    # The reference ran the same network.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(image, training=False)), output, rtol=1e-4, atol=1e-4)


def test_counts_what_the_reference_multiplies_in_padded_patches(rng, monkeypatch):
    image = keras.Input((11, 16, 3))
    model = keras.Model(image, layers.PatchEmbed(H, 4, stride=3, padding="same", **LAST)(image))
    _, products, normalized = reference_counts.run(model, rng.standard_normal((1, 11, 16, 3)), monkeypatch)
    assert (profile(model).macs, profile(model).published_flops) == (products, products + 4 * normalized)


def test_takes_the_models_own_size():
    free, fixed = uneven("SplitMixerI"), uneven("SplitMixerI", input_shape=(11, 16, 3))
    assert profile(fixed) == profile(fixed, (11, 16, 3)) == profile(fixed, [11, 16, 3]) == profile(free, (11, 16, 3))
    assert profile(free, tuple(np.array([11, 16, 3]))).layers[0].output_shape == (11, 16, 3)


def test_layers_around_a_network():
    """Stock layers in front and behind, and a sequential model of them."""
    stock = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Normalization(),
        layers.PatchEmbed(H, 2, **LAST),
        keras.layers.MaxPooling2D(2, **LAST),
        keras.layers.LayerNormalization(),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Flatten(**LAST),
        keras.layers.Dense(7),
    ]
    model = keras.Sequential([keras.Input((8, 12, 3)), *stock])
    macs = [0, 0, 4 * 6 * EMBED, 0, 0, 0, 0, 0, 2 * 3 * H * 7]
    norms = [0, 0, 4 * 6 * H, 0, 0, 2 * 3 * H, 0, 0, 0]
    params = [0, 0, EMBED + H + NORM, 0, NORM, NORM, 0, 0, 2 * 3 * H * 7 + 7]
    found = profile(model)
    assert [layer.macs for layer in found.layers] == macs
    assert [layer.published_flops for layer in found.layers] == [m + 4 * n for m, n in zip(macs, norms, strict=True)]
    assert [layer.params for layer in found.layers] == params
    x = image = keras.Input((8, 12, 3), name="image")
    for layer in stock:
        x = layer.__class__.from_config(layer.get_config())(x)
    functional = profile(keras.Model(image, x))
    assert functional.layers[0].output_shape == (8, 12, 3)
    assert functional.layers[1:] == found.layers


def test_prints_a_table():
    model = keras_mixers.SplitMixerI(48, 1, num_classes=10, **LAST)
    found = profile(model, (64, 96, 3))
    assert str(found) == (
        "layer            kind                    output shape  parameters       MACs  published FLOPs\n"
        "image            InputLayer              (64, 96, 3)            0          0                0\n"
        "patch_embed      PatchEmbed              (32, 48, 48)         720    884,736        1,179,648\n"
        "block_0_spatial  SpatialMixer1D          (32, 48, 48)         768    737,280        1,327,104\n"
        "block_0_channel  ChannelSplitMixerI      (32, 48, 48)       1,152  1,572,864        1,867,776\n"
        "pool             GlobalAveragePooling2D  (48,)                  0          0                0\n"
        "head             Dense                   (10,)                490        480              480\n"
        "total                                                       3,130  3,195,360        4,375,008\n"
        "\n"
        "Trainable parameters; multiply-accumulates (MACs) for one image; the SplitMixer paper's FLOPs, which are\n"
        "MACs + 4 for each element of each BatchNormalization's output."
    )
    assert segment_spans(48, 2, 2 / 3) == [(0, 32), (16, 48)]  # 32 * 48 * 32 * 32 = 1,572,864


def test_a_profile_cannot_be_changed():
    found = profile(uneven("ConvMixer"), (9, 9, 3))
    assert isinstance(found, Profile)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.layers = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.layers[0].macs = 0


# Refusals: one sentence each, with the argument, the value and a remedy.


def refusal(model, *arguments):
    with pytest.raises(ValueError, match=r"\.$") as caught:
        profile(model, *arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert not re.search(r"[.!?] ", message), message
    return message


WRONG_SHAPES = [(9, 9), (1, 9, 9, 3), (9, 9, 1), (3, 9, 9), (9, None, 3), (9, 0, 3), (9, -9, 3), (9, 9.0, 3)]


@pytest.mark.parametrize("shape", [*WRONG_SHAPES, (9, True, 3), 9, "9"])
def test_refuses_shapes_that_the_model_does_not_take(shape):
    message = refusal(uneven("ConvMixer"), shape)
    assert message.startswith("input_shape must fit the model's own, (None, None, 3), got input_shape=" + repr(shape))
    assert message.endswith("give a whole number of at least 1 for each None.")


@pytest.mark.parametrize(
    ("options", "shape", "parts"),
    [
        ({"data_format": "channels_first"}, (9, 9, 3), ["(3, None, None), got input_shape=(9, 9, 3)"]),
        (
            {"input_shape": (9, 12, 3)},
            (12, 9, 3),
            ["own, (9, 12, 3), got input_shape=(12, 9, 3); build the model with"],
        ),
        ({}, None, ["input_shape must be given", "got input_shape=None for (None, None, 3)"]),
        ({}, (9, 2, 3), ["got input_shape=(9, 2, 3), which 'patch_embed' refuses: ", "2 pixels with patch_size=3"]),
    ],
    ids=["another data format", "another size than the fixed one", "no size", "smaller than a patch"],
)
def test_refuses_shapes_and_says_what_is_right(options, shape, parts):
    message = refusal(uneven("ConvMixer", **options), shape)
    assert all(part in message for part in parts)


class SizelessLayer(keras.layers.Layer):
    """A layer that does not tell its shape."""

    def call(self, x):
        return x + 1


def test_refuses_layers_without_a_formula():
    image = keras.Input((8, 8, 3))
    for layer in (keras.layers.Conv2D(4, 3), keras.layers.Resizing(4, 4), SizelessLayer()):
        message = refusal(keras.Model(image, layer(image)))
        assert "PatchEmbed, SpatialMixer2D" in message
        assert f"got layer {layer.name!r} of class {type(layer).__name__}" in message


def test_refuses_what_is_not_one_line_of_layers():
    image = keras.Input((8, 8, 3), name="image")
    mixer = layers.ChannelMixer(name="mixer", **LAST)
    mixed = mixer(image)
    branched = keras.Model(image, keras.layers.Add(name="sum")([mixed, image]), name="branched")
    assert "got model='branched', whose layer 'sum'" in refusal(branched)
    two_outputs = keras.Model(image, [image, mixed], name="two")
    assert "must have one output" in refusal(two_outputs)
    tensor_arithmetic = keras.Model(image, mixed * 2, name="doubled")
    assert "must have one output" in refusal(tensor_arithmetic)
    twice = keras.Model(image, mixer(mixed), name="twice")
    assert "got model='twice'" in refusal(twice)


def test_refuses_models_in_models_and_what_is_no_functional_model():
    inner = keras_mixers.SplitMixerI(8, 1, name="inner", **LAST)
    image = keras.Input((8, 8, 3))
    assert "with 'inner' in it; profile that one by itself" in refusal(keras.Model(image, inner(image)))

    class Subclassed(keras.Model):
        pass

    for other in (Subclassed(), keras.Sequential([keras.layers.Dense(2)]), layers.ChannelMixer(), "convmixer"):
        assert f"got model={type(other).__name__}; " in refusal(other)
