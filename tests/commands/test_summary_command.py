"""`summary` prints the profile of a model of the table."""

import pytest

import keras_mixers
from keras_mixers.profiling import profile

pytestmark = pytest.mark.backend_independent


def profile_of(name, height, width, **overrides):
    model = keras_mixers.create_model(name, **overrides)
    sides = iter((height, width))
    return profile(model, [channels or next(sides) for channels in model.input_shape[1:]])


def test_summarises_a_model_at_its_published_size(run):
    assert run("summary", "splitmixer_i_256_8") == f"{profile_of('splitmixer_i_256_8', 32, 32)}\n"


@pytest.mark.parametrize("option", [("--image-size", 40), ("--input-shape", 40, 40)])
def test_summarises_at_other_sizes_and_for_other_classes(run, option):
    found = profile_of("splitmixer_i_256_8", 40, 40, num_classes=7)
    assert run("summary", "splitmixer_i_256_8", *option, "--num-classes", 7) == f"{found}\n"


def test_height_comes_before_width(run):
    found = profile_of("splitmixer_i_256_8", 8, 16)
    assert run("summary", "splitmixer_i_256_8", "--input-shape", 8, 16) == f"{found}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("splitmixer_1_256_8",), "There is no model named 'splitmixer_1_256_8'; did you mean "),
        (("zzz", "--image-size", 32), "There is no model named 'zzz'; keras_mixers.list_models() names"),
        (("convmixer_768_32", "--image-size", 3), "got 3 pixels with patch_size=7"),
    ],
)
def test_refuses_in_one_sentence(refused, arguments, message):
    assert message in refused("summary", *arguments)
