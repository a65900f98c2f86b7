"""The table: exact numbers of parameters, the README's copy of it, and what a name that is not in it gets."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_networks import arguments_of, for_every_builder

import keras_mixers
from keras_mixers.inference.images import prepare_images
from keras_mixers.models import PRESETS

# Trainable parameters of every model, as counted in the authors' own networks where these exist.
PARAMETERS = {
    "convmixer_1536_20": 51_625_960,
    "convmixer_768_32": 21_110_248,
    "convmixer_1536_20_p7_k3": 49_414_120,
    "convmixer_1536_20_p14_k9": 52_303_336,
    "convmixer_1024_16_p7_k9": 19_381_224,
    "convmixer_1024_12_p7_k8": 14_621_672,
    "convmixer_512_16_p7_k8": 5_357_544,
    "convmixer_512_12_p7_k8": 4_165_608,
    "convmixer_768_32_p14_k3": 20_465_896,
    "convmixer_1024_20_p14_k9": 24_383_464,
    "convmixer_128_4_p1_k8": 103_434,
    "convmixer_128_8_p1_k8": 204_810,
    "convmixer_128_12_p1_k8": 306_186,
    "convmixer_256_4_p1_k8": 337_930,
    "convmixer_256_8_p1_k8": 671_754,
    "convmixer_256_12_p1_k8": 1_005_578,
    "convmixer_256_16_p1_k8": 1_339_402,
    "convmixer_256_20_p1_k8": 1_673_226,
    "convmixer_256_8_p1_k3": 559_114,
    "convmixer_256_8_p1_k5": 591_882,
    "convmixer_256_8_p1_k7": 641_034,
    "convmixer_256_8_p1_k9": 706_570,
    "convmixer_256_8_p1_k11": 788_490,
    "convmixer_256_8_p1_k13": 886_794,
    "convmixer_256_8_p1_k15": 1_001_482,
    "convmixer_256_8_p2_k3": 561_418,
    "convmixer_256_8_p2_k5": 594_186,
    "convmixer_256_8_p2_k7": 643_338,
    "convmixer_256_8_p2_k9": 708_874,
    "convmixer_256_8_p2_k11": 790_794,
    "convmixer_256_8_p4_k9": 718_090,
    "convmixer_256_8_p8_k9": 754_954,
    "splitmixer_i_256_8": 275_834,
    "splitmixer_ii_256_8": 175_370,
    "splitmixer_iii_256_8": 175_370,
    "splitmixer_iii_256_8_s4": 76_554,
    "splitmixer_iv_256_8": 307_466,
    "splitmixer_v_256_8": 508_394,
    "splitmixer_v_256_8_r3_5": 420_266,
    "stridemixer_256_8": 175_370,
    "convmixer_256_8_p7_k7": 701_542,
    "splitmixer_i_256_8_p7_k7": 342_230,
    "splitmixer_i_256_8_p7_k7_r3_5": 298_166,
    "splitmixer_i_256_8_p7_k7_r4_7": 281_366,
    "splitmixer_i_256_8_p7_k7_r5_9": 272_118,
    "splitmixer_i_256_8_p7_k7_r6_11": 265_350,
    "splitmixer_ii_256_8_p7_k7": 241_766,
    "splitmixer_ii_256_8_p7_k7_s3": 168_494,
    "splitmixer_ii_256_8_p7_k7_s4": 142_950,
    "splitmixer_ii_256_8_p7_k7_s5": 130_990,
    "splitmixer_ii_256_8_p7_k7_s6": 124_474,
    "splitmixer_iii_256_8_p7_k7": 241_766,
    "splitmixer_iii_256_8_p7_k7_s4": 142_950,
    "splitmixer_iii_256_8_p7_k7_s8": 118_118,
    "splitmixer_iv_256_8_p7_k7": 373_862,
    "splitmixer_iv_256_8_p7_k7_s3": 286_486,
    "splitmixer_iv_256_8_p7_k7_s4": 242_790,
    "splitmixer_iv_256_8_p7_k7_s5": 216_582,
    "splitmixer_i_1536_20": 23_558_120,
    "splitmixer_i_768_32": 9_829_864,
}


def trainable_parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def test_every_model_of_the_table_is_counted_here():
    assert set(PARAMETERS) == set(keras_mixers.list_models())


@pytest.mark.backend_independent
@pytest.mark.parametrize("name", PARAMETERS)
def test_has_exactly_the_published_parameters(name):
    model = keras_mixers.create_model(name)
    assert trainable_parameters(model) == PARAMETERS[name]
    assert model.name == name
    assert model.output_shape == (None, PRESETS[name].arguments["num_classes"])


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if "ratio" in preset.arguments])
def test_split_mixers_of_the_table_follow_the_papers_count(name):
    """Embedding, per block 2 depthwise kernels and the mixed segments, norms of 2 parameters a channel, head."""
    a = PRESETS[name].arguments
    h, b, k, p, classes = a["dim"], a["blocks"], a["kernel_size"], a["patch_size"], a["num_classes"]
    m = int(h * a["ratio"])
    mixed = 2 if "_v_" in name else 1
    block = 2 * (k * h + h + 2 * h) + mixed * (m * m + m) + 2 * h
    assert PARAMETERS[name] == 3 * p * p * h + 3 * h + b * block + h * classes + classes


def test_published_accuracies_are_percentages_with_a_source():
    for preset in PRESETS.values():
        for published in preset.published:
            assert 50 < published.top1 < 100
            assert published.source.startswith(("ConvMixer ", "SplitMixer "))


def test_the_readme_shows_the_table():
    readme = (Path(__file__).parents[2] / "README.md").read_text().partition("\n## Models\n")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", readme, re.MULTILINE))
    assert {name: int(count.replace(",", "")) for name, count in rows.items()} == PARAMETERS
    for name, preset in PRESETS.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        for published in preset.published:
            assert f"{published.top1:.2f}" in row, f"{name} lacks {published}"


def test_patterns_select():
    assert keras_mixers.list_models("stride*") == ["stridemixer_256_8"]
    assert keras_mixers.list_models("no such") == []
    assert len(keras_mixers.list_models("*_256_8*")) > 30


def test_overrides_win():
    model = keras_mixers.create_model("splitmixer_ii_256_8", num_classes=100, segments=4, name="mine")
    assert model.output_shape == (None, 100)
    assert model.name == "mine"
    assert model.get_layer("block_3_channel").mixed_spans == [(192, 256)]


def test_refuses_unknown_names_and_tells_the_nearest():
    with pytest.raises(ValueError, match=r"no model named 'splitmixer_1_256_8'; did you mean .*'splitmixer_i_256_8'"):
        keras_mixers.create_model("splitmixer_1_256_8")
    with pytest.raises(ValueError, match=r"no model named 'zzz'; keras_mixers.list_models\(\) names them all"):
        keras_mixers.create_model("zzz")
    with pytest.raises(TypeError, match="SplitMixerI has no argument 'num_clases'; did you mean 'num_classes'"):
        keras_mixers.create_model("splitmixer_i_256_8", num_clases=3)


@pytest.mark.parametrize(("name", "nearest"), [("kernelsize", "kernel_size"), ("dtyp", "dtype"), ("dims", "dim")])
@for_every_builder
def test_a_builder_reports_an_unknown_argument_as_its_own(builder, name, nearest):
    with pytest.raises(TypeError, match=f"^{builder} has no argument '{name}'; did you mean '{nearest}'[?]$"):
        getattr(keras_mixers, builder)(**arguments_of(builder), **{name: 3})


def test_the_name_says_what_differs_from_the_table():
    model = keras_mixers.create_model("splitmixer_i_256_8", dim=12, blocks=2, num_classes=3, kernel_size=5)
    assert model.name == "splitmixer_i_256_8_dim_12_blocks_2"
    model = keras_mixers.create_model("splitmixer_v_256_8", dim=12, ratio=3 / 5)
    assert model.name == "splitmixer_v_256_8_dim_12_ratio_0.6"
    assert keras_mixers.create_model("splitmixer_v_256_8", num_classes=3, dtype="float32").name == "splitmixer_v_256_8"


SMALL = {"dim": 8, "blocks": 1}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("sides", "size"), [((64, 64), 64), ((64, None), 64), ((None, None), 32), ((64, 96), 96), ((24, 24), 24)]
)
def test_pixels_have_the_size_of_the_input(sides, size, data_format):
    shape = (*sides, 3) if data_format == "channels_last" else (3, *sides)
    given = {**SMALL, "input_shape": shape, "data_format": data_format}
    preset = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    expected = replace(preset, size=size)
    assert keras_mixers.create_model("splitmixer_i_256_8", **given).pixels == expected
    assert keras_mixers.SplitMixerI(**given, preprocessing=preset).pixels == expected
    other = replace(preset, mean=(0.5, 0.5, 0.5), interpolation="bilinear")
    model = keras_mixers.create_model("splitmixer_i_256_8", **given, preprocessing=other)
    assert model.pixels == replace(other, size=size)
    photographs = [np.zeros((100, 120, 3), "uint8")]
    if sides == (64, 96):
        with pytest.raises(ValueError, match=r"images must be a batch as .*64, 96.*96, 96.*resize or crop"):
            prepare_images(model, photographs)
    else:
        assert model(prepare_images(model, photographs)).shape == (1, 10)


def test_preprocessing_is_spelt_the_same_everywhere():
    def normalizes(**options):
        model = keras_mixers.create_model("splitmixer_i_256_8", **SMALL, **options)
        return any(layer.name == "normalize_pixels" for layer in model.layers)

    pixels = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    assert [normalizes(preprocessing=given) for given in (True, pixels, False, None)] == [True, True, False, False]
    assert [normalizes(include_preprocessing=given) for given in (True, False)] == [True, False]
    with pytest.raises(ValueError, match="preprocessing must be None or statistics of pixels .*preprocessing=True"):
        keras_mixers.SplitMixerI(**SMALL, preprocessing=True)
    with pytest.raises(TypeError, match="SplitMixerI has no argument 'include_preprocessing'; did you mean 'prep"):
        keras_mixers.SplitMixerI(**SMALL, include_preprocessing=True)
