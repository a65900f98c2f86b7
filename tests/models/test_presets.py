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

README = (Path(__file__).parents[2] / "README.md").read_text().partition("\n## Models\n")[2]
# Trainable parameters of every model, as counted in the authors' own networks where these exist: the README's table.
ROWS = dict(re.findall(r"^\| `(\w+)` (\| .*)", README, re.MULTILINE))
PARAMETERS = {name: int(row.split()[1].replace(",", "")) for name, row in ROWS.items()}


def trainable_parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def test_the_readme_shows_the_table():
    assert set(PARAMETERS) == set(keras_mixers.list_models())
    for name, preset in PRESETS.items():
        for published in preset.published:
            assert f"{published.top1:.2f}" in ROWS[name], f"{name} lacks {published}"


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
            assert published.source.startswith(("ConvMixer ", "SplitMixer ")) or published.source == "timm"


def test_the_networks_to_be_compared_are_of_one_size():
    ours = keras_mixers.list_models("*_64_8_p4") + keras_mixers.list_models("gmlp_60_8_p4")
    ours += keras_mixers.list_models("convmixer_176*") + keras_mixers.list_models("splitmixer_i*_2[56][04]_8_p4")
    assert len(ours) == 6
    for name in ours:
        assert 302_000 < PARAMETERS[name] < 305_000
        assert PRESETS[name].published == ()
        assert (PRESETS[name].blocks, PRESETS[name].arguments["patch_size"], PRESETS[name].pixels.size) == (8, 4, 32)


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
