"""From a photograph to a network's input: in the model, in front of it, and as Pillow and torchvision do it."""

import pathlib
import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixers
from keras_mixers import create_model, get_preset, preprocess_input
from keras_mixers.inference.images import is_channels_first
from keras_mixers.models import PRESETS, ImageSpec

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
FORMATS = ["channels_last", "channels_first"]
SMALL = {"splitmixer_i_256_8": {"dim": 16, "blocks": 2}, "convmixer_768_32": {"dim": 16, "depth": 2}}
IMAGENET, CIFAR10 = "convmixer_768_32", "splitmixer_i_256_8"

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

for_each_network = pytest.mark.parametrize("name", SMALL)
for_each_format = pytest.mark.parametrize("data_format", FORMATS)


def small(name, include_preprocessing, data_format="channels_last", **options):
    options = {**SMALL[name], "data_format": data_format, **options}
    return create_model(name, include_preprocessing=include_preprocessing, **options)


def pair(name, randomize, data_format="channels_last", **options):
    """Give a network that takes raw pixels and one that takes normalised ones, with the same random weights."""
    raw = randomize(small(name, True, data_format, **options))
    normalized = small(name, False, data_format, **options)
    normalized.set_weights(raw.get_weights())
    return raw, normalized


def logits(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def pixels(data_format="channels_last", dtype="uint8"):
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 35, 3))
    return np.moveaxis(images, -1, -1 if data_format == "channels_last" else 1).astype(dtype)


def formula(name, images, data_format="channels_last"):
    """Compute (x / 255 - mean) / std in float64."""
    shape = (3,) if data_format == "channels_last" else (3, 1, 1)
    mean, std = (np.reshape(value, shape) for value in (get_preset(name).pixels.mean, get_preset(name).pixels.std))
    return ((images / 255 - mean) / std).astype("float32")


@for_each_network
@for_each_format
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_with_preprocessing_is_the_one_without_it_on_normalized_pixels(name, data_format, dtype, randomize):
    raw, normalized = pair(name, randomize, data_format)
    images = pixels(data_format, dtype)
    expected = logits(normalized, formula(name, images, data_format))
    assert difference(logits(raw, images), expected) <= 1e-5


@for_each_network
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_predict_takes_raw_pixels(name, dtype, randomize):
    raw, normalized = pair(name, randomize)
    found = raw.predict(pixels(dtype=dtype), verbose=0)
    assert difference(found, logits(normalized, formula(name, pixels()))) <= 1e-5


@for_each_network
@for_each_format
def test_mixed_precision_normalizes_in_float32(name, data_format, randomize):
    """Beyond the last bit of float32 nothing differs until the patches are embedded.

    A pixel whose two values lie on both sides of a tie is rounded to neighbours in bfloat16, 2**-8 of its value apart.
    Normalised in bfloat16, every pixel would be off by as much.
    """
    raw, normalized = pair(name, randomize, data_format, dtype="mixed_bfloat16")
    layer = raw.get_layer("normalize_pixels")
    assert layer.compute_dtype == "float32"
    images = pixels(data_format)
    expected = formula(name, images, data_format)
    np.testing.assert_allclose(logits(layer, images), expected, rtol=0, atol=1.5e-6)
    assert difference(logits(raw, images), logits(normalized, expected)) <= 2**-8


@for_each_network
def test_is_the_same_after_a_keras_file_to_the_bit(name, randomize, tmp_path):
    model = randomize(small(name, True))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for dtype in ("uint8", "float32"):
        np.testing.assert_array_equal(logits(again, pixels(dtype=dtype)), logits(model, pixels(dtype=dtype)))


@for_each_network
def test_preprocessing_adds_a_layer_and_no_weight(name):
    raw, normalized = small(name, True), small(name, False)
    names = [[layer.name for layer in model.layers] for model in (raw, normalized)]
    assert names[0] == [names[1][0], "normalize_pixels", *names[1][1:]]
    assert raw.count_params() == normalized.count_params()
    assert [weight.path for weight in raw.weights] == [weight.path for weight in normalized.weights]


@for_each_network
def test_a_state_dict_and_a_file_of_weights_go_from_one_to_the_other(name, randomize, tmp_path):
    raw, normalized = small(name, True), randomize(small(name, False))
    layout = "timm" if name.startswith("convmixer") else "splitmixer"
    keras_mixers.load_torch_weights(raw, keras_mixers.to_torch_state_dict(normalized, layout))
    for there, here in zip(raw.get_weights(), normalized.get_weights(), strict=True):
        np.testing.assert_array_equal(there, here)
    normalized.save(tmp_path / "model.keras")
    loaded = small(name, True, weights=tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(loaded, pixels()), logits(raw, pixels()))


@for_each_network
@for_each_format
def test_both_ways_through_preprocess_input_agree(name, data_format, randomize):
    raw, normalized = pair(name, randomize, data_format)
    images = [scene(260, 300), scene(41, 30)]
    whole = preprocess_input(images, name, normalize=False, data_format=data_format)
    scaled = preprocess_input(images, name, data_format=data_format)
    assert difference(logits(raw, whole), logits(normalized, scaled)) <= 1e-5


# What Pillow and torchvision make of a photograph.


def scene(height, width):
    """Draw smooth waves with black and white parts and a hard edge."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(a * rows + b * columns + c) for a, b, c in ((9, 4, 0), (3, 31, 1), (40, 12, 2))]
    levels = 128 + 150 * np.stack(waves, -1)
    levels[: height // 3, width // 2 :] = (255, 0, 60)
    return np.clip(levels, 0, 255).astype("uint8")


def with_pillow(image, name):
    """Resize(floor(size / crop fraction), bicubic), CenterCrop(size), with the integers that torchvision computes."""
    size, resized = (224, 233) if name == IMAGENET else (32, 32)
    image = Image.fromarray(image)
    short, long = sorted(image.size)
    longer = int(resized * long / short)
    image = image.resize((resized, longer) if image.width <= image.height else (longer, resized), Image.BICUBIC)
    left, top = (int(round((side - size) / 2.0)) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def assert_equals_pillow(image, name):
    found = preprocess_input([image], name, normalize=False, data_format="channels_last")[0]
    np.testing.assert_array_equal(found, with_pillow(image, name))


SIZES = {
    "landscape": (301, 401), "portrait": (401, 300), "square": (400, 400), "already resized": (233, 233),
    "resized but for the crop": (233, 257), "one column more": (233, 234), "one row more": (234, 233),
    "odd remainder": (333, 500), "panorama": (100, 613), "enlarged": (57, 100), "enlarged portrait": (97, 60),
    "tiny": (3, 2), "one pixel": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize(("height", "width"), SIZES.values(), ids=SIZES)
def test_cuts_drawn_images_as_pillow_and_torchvision_do(height, width):
    assert_equals_pillow(scene(height, width), IMAGENET)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (47, 32), (20, 31), (300, 401)])
def test_cuts_images_for_cifar_networks_without_a_margin(height, width):
    assert_equals_pillow(scene(height, width), CIFAR10)


def test_cuts_noise_as_pillow_does(rng):
    """Overshoots that are not cut off between the two passes give differences of up to 26 levels here."""
    assert_equals_pillow(rng.integers(0, 256, (97, 60, 3), dtype="uint8"), IMAGENET)


def test_cuts_photographs_as_pillow_and_torchvision_do():
    folder = SHARED / "imagenette_mini" / "val"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    files = sorted(folder.glob("*/*.JPEG"))[::30]
    assert len(files) >= 10
    for file in files:
        assert_equals_pillow(np.asarray(Image.open(file).convert("RGB")), IMAGENET)


def test_leaves_images_of_the_right_size_as_they_are(rng):
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    found = preprocess_input(images, CIFAR10, normalize=False, data_format="channels_last")
    np.testing.assert_array_equal(found, images.astype("float32"))


@for_each_network
@for_each_format
@pytest.mark.parametrize("normalize", [True, False])
def test_gives_a_float32_batch_in_the_data_format(name, data_format, normalize):
    images = [scene(260, 300), scene(41, 30)]
    batch = preprocess_input(images, name, normalize=normalize, data_format=data_format)
    size = get_preset(name).pixels.size
    assert batch.dtype == "float32"
    assert batch.shape == ((2, size, size, 3) if data_format == "channels_last" else (2, 3, size, size))
    whole = preprocess_input(images, name, normalize=False, data_format="channels_last")
    assert set(np.unique(whole)) <= set(range(256))
    expected = formula(name, whole) if normalize else whole
    expected = np.moveaxis(expected, -1, 1 if data_format == "channels_first" else -1)
    np.testing.assert_allclose(batch, expected, atol=1e-6)


def test_the_data_format_is_kerass_unless_given():
    first = keras.config.image_data_format() == "channels_first"
    assert preprocess_input([scene(32, 32)], CIFAR10).shape == ((1, 3, 32, 32) if first else (1, 32, 32, 3))


def test_arrays_lists_floats_and_pillow_images_are_the_same_photographs():
    image = scene(50, 40)
    expected = preprocess_input([image], CIFAR10)
    for images in ((image,), image[None], [Image.fromarray(image)], [image.astype("float64")], [image.astype("int64")]):
        np.testing.assert_array_equal(preprocess_input(images, CIFAR10), expected)


def test_fractions_are_rounded_before_anything_else():
    image = scene(50, 40)
    fractions = np.random.default_rng(0).uniform(-0.4, 0.4, image.shape)
    expected = preprocess_input([image], CIFAR10)
    np.testing.assert_array_equal(preprocess_input([(image + fractions).clip(0, 255)], CIFAR10), expected)


@pytest.mark.parametrize("level", [0, 1, 255])
def test_black_and_white_images_are_images(level):
    image = np.full((40, 50, 3), level, "uint8")
    assert np.unique(preprocess_input([image], CIFAR10, normalize=False)) == [level]


REFUSALS = {
    "single image": (scene(9, 9), {}, r"batch or a list of images, got a single one of shape \(9, 9, 3\).*into a list"),
    "grey image": ([np.zeros((9, 9))], {}, r"must be \(height, width, 3\), got shape \(9, 9\); convert it to RGB"),
    "transparent image": ([np.zeros((9, 9, 4))], {}, r"got shape \(9, 9, 4\); convert it to RGB"),
    "channels first": ([np.zeros((3, 9, 9))], {}, r"got shape \(3, 9, 9\)"),
    "image without pixels": ([np.zeros((0, 9, 3))], {}, r"got shape \(0, 9, 3\)"),
    "second image": ([scene(9, 9), np.zeros((9, 9))], {}, r"got shape \(9, 9\)"),
    "empty list": ([], {}, "at least one image, got none"),
    "data format": ([scene(9, 9)], {"data_format": "NHWC"}, "data_format must be .* got data_format='NHWC'"),
    "below 0": ([np.full((9, 9, 3), -0.5)], {}, "Pixels must lie from 0 to 255, got -0.5 to -0.5"),
    "above 255": ([np.full((9, 9, 3), 256)], {}, "Pixels must lie from 0 to 255, got 256 to 256"),
    "NaN": ([np.full((9, 9, 3), np.nan)], {}, "Pixels must lie from 0 to 255, got nan to nan"),
}


@pytest.mark.parametrize(("images", "options", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refuses(images, options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        preprocess_input(images, CIFAR10, **options)
    assert "\n" not in str(refusal.value)


def test_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="no model named 'convmixer_768_31'; did you mean 'convmixer_768_32'"):
        preprocess_input([scene(9, 9)], "convmixer_768_31")


SPECS = {
    "size": ({"size": -2}, "size must be a whole number of at least 1, got size=-2"),
    "two means": ({"mean": (0.5, 0.5)}, r"mean must be three numbers, one for each colour, got mean=\(0.5, 0.5\)"),
    "one std": ({"std": 0.5}, "std must be three numbers, one for each colour, got std=0.5"),
    "no std": ({"std": (0.5, 0, 0.5)}, r"std must be above 0 for each colour, got std=\(0.5, 0, 0.5\)"),
    "no crop": ({"crop_fraction": 0}, "crop_fraction must be above 0 and at most 1, got crop_fraction=0"),
    "crop below 0": ({"crop_fraction": -0.5}, "crop_fraction must be .* got crop_fraction=-0.5"),
    "crop above 1": ({"crop_fraction": 1.2}, "crop_fraction must be .* got crop_fraction=1.2"),
    "interpolation": ({"interpolation": "cubic"}, "interpolation must be one of 'bicubic', 'bilinear', got .*'cubic'"),
}


@pytest.mark.parametrize(("change", "message"), SPECS.values(), ids=SPECS)
def test_a_specification_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        ImageSpec(**{"size": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3, **change})


# The table.

HALVES = ImageSpec(224, (0.5,) * 3, (0.5,) * 3, 0.875, "bicubic")
SEVEN_EIGHTHS = ImageSpec(224, *IMAGENET_STATISTICS, 0.875, "bicubic")
TIMMS = {
    "mixer_b16": HALVES, "mixer_l16": HALVES, "gmixer_24": SEVEN_EIGHTHS, "resmlp_12": SEVEN_EIGHTHS,
    "resmlp_24": SEVEN_EIGHTHS, "resmlp_36": SEVEN_EIGHTHS, "resmlp_big_24": SEVEN_EIGHTHS, "gmlp_s16": HALVES,
}  # fmt: skip


def test_every_preset_has_the_pixels_of_its_data_set():
    mean, flowers = (0.4914, 0.4822, 0.4465), ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))
    cifar10 = {True: (mean, (0.2471, 0.2435, 0.2616)), False: (mean, (0.2023, 0.1994, 0.2010))}
    splitmixers = {value for name, value in vars(keras_mixers).items() if re.match("SplitMixer|StrideMixer", name)}
    for name, preset in PRESETS.items():
        own = preset.builder in splitmixers and not name.endswith("_p4")  # the networks of the SplitMixer paper
        expected = {
            10: ImageSpec(32, *cifar10[not own], 1.0, "bicubic"),
            102: ImageSpec(224, *flowers, 1.0, "bicubic"),
            1000: TIMMS.get(name, ImageSpec(224, *IMAGENET_STATISTICS, 0.96, "bicubic")),
        }
        assert preset.pixels == expected[preset.arguments["num_classes"]], name
        assert preset.pixels.size % preset.arguments["patch_size"] == 0, name
    assert {preset.arguments["num_classes"] for preset in PRESETS.values()} == set(expected)


def test_the_networks_with_timms_weights_have_timms_pixels():
    names = [name for name, preset in PRESETS.items() if "imagenet" in preset.weights]
    assert names == ["convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_p14_k9", *TIMMS]
    convmixers = {get_preset(name).pixels for name in names[:3]}
    assert convmixers == {ImageSpec(224, *IMAGENET_STATISTICS, 0.96, "bicubic")}


def test_some_weights_take_other_pixels():
    other = ImageSpec(224, (0.0,) * 3, (1.0,) * 3, 0.875, "bilinear")
    for name, preset in PRESETS.items():
        for weights in preset.weights:
            expected = other if (name, weights) == ("mixer_b16", "imagenet_miil") else preset.pixels
            assert preset.pixels_of(weights) == expected, (name, weights)
    assert get_preset("mixer_b16").pixels_of("hf://timm/mixer_b16_224.goog_in21k") == get_preset("mixer_b16").pixels
    image = scene(300, 260)
    found = preprocess_input([image], "mixer_b16", weights="imagenet_miil", data_format="channels_last")
    np.testing.assert_array_equal(found, other.preprocess([image], data_format="channels_last"))
    assert (found != preprocess_input([image], "mixer_b16", data_format="channels_last")).any()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("sides", [(8, 8), (8, 3), (None, None)])
def test_a_network_knows_the_layout_of_its_images(sides, channels, data_format):
    shape = (*sides, channels) if data_format == "channels_last" else (channels, *sides)
    model = keras_mixers.SplitMixerI(6, 1, 3, 2, 5, input_shape=shape, data_format=data_format)
    assert is_channels_first(model) == (data_format == "channels_first")
    assert model.image_sides == sides
