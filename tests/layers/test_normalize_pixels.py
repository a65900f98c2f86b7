import keras
import numpy as np
import pytest
from agreement import array, both_formats

from keras_mixers.layers import NormalizePixels

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar10_splitmixer": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
IMAGENET = STATISTICS["imagenet"]


def every_level():
    """Give images in which each colour has each level from 0 to 255; they have as many columns as colours."""
    levels = np.tile(np.arange(258)[:, None] % 256, (1, 3))
    return np.random.default_rng(0).permuted(levels, axis=0).reshape(2, 43, 3, 3)


@both_formats
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("statistics", STATISTICS)
def test_equals_the_formula_to_float32_rounding(statistics, dtype, data_format):
    mean, std = STATISTICS[statistics]
    pixels = every_level()
    expected = (pixels / 255 - mean) / std  # float64
    if data_format == "channels_first":
        pixels, expected = np.moveaxis(pixels, -1, 1), np.moveaxis(expected, -1, 1)
    y = NormalizePixels(mean, std, data_format)(keras.ops.convert_to_tensor(pixels.astype(dtype)))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    # Scale, offset, product and sum, each below 5.2, are rounded once.
    assert np.abs(array(y) - expected).max() <= 4 * 5.2 * 2**-24


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("policy", "compute_dtype"), [("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("float16", "float16")]
)
def test_computes_in_its_dtype(policy, compute_dtype, dtype):
    y = NormalizePixels(*IMAGENET, "channels_last", dtype=policy)(every_level().astype(dtype))
    assert keras.backend.standardize_dtype(y.dtype) == compute_dtype


def test_has_no_weights_and_keeps_the_shape():
    layer = NormalizePixels(*IMAGENET, "channels_first")
    layer.build((None, 3, 8, 6))
    assert layer.weights == []
    assert layer.compute_output_shape((None, 3, None, 6)) == (None, 3, None, 6)


@both_formats
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_is_the_same_after_a_keras_file_to_the_bit(policy, data_format, tmp_path):
    pixels = np.moveaxis(every_level(), -1, -1 if data_format == "channels_last" else 1).astype("uint8")
    layer = NormalizePixels(*IMAGENET, data_format, name="mine", dtype=policy)
    model = keras.Sequential([keras.Input(pixels.shape[1:], dtype="uint8"), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.layers[-1]
    assert again.get_config() == layer.get_config()
    assert (again.mean, again.std, again.data_format, again.name) == (*IMAGENET, data_format, "mine")
    outputs = [array(keras.ops.cast(each(pixels), "float32")) for each in (loaded, model)]
    np.testing.assert_array_equal(*outputs)


REFUSALS = [
    ({"std": (0.2, 0.0, 0.2)}, r"std must be above 0 for each colour, got std=\(0.2, 0.0, 0.2\)"),
    ({"std": (0.2, 0.2, -0.1)}, "std must be above 0"),
    ({"mean": (0.5, 0.5)}, r"mean must be three numbers, one for each colour, got mean=\(0.5, 0.5\)"),
    ({"std": (0.5, 0.5)}, "std must be three numbers"),
    ({"std": 0.5}, "std must be three numbers"),
    ({"mean": ("a", "b", "c")}, "mean must be three numbers"),
    ({"mean": "rgb"}, "mean must be three numbers"),
    ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three numbers"),
    ({"std": (0.5, 0.5, float("inf"))}, "std must be three numbers"),
    ({"data_format": "NHWC"}, "data_format must be .* got data_format='NHWC'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS, ids=str)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        NormalizePixels(**{"mean": IMAGENET[0], "std": IMAGENET[1], **options})


@pytest.mark.parametrize(
    ("data_format", "shape", "channels"),
    [
        ("channels_last", (2, 8, 6, 4), 4),
        ("channels_first", (2, 1, 8, 6), 1),
        ("channels_first", (2, 8, 6, 3), 8),
        ("channels_last", (2, 3, 8, 6), 6),
    ],
)
def test_refuses_images_of_other_than_3_channels(data_format, shape, channels):
    with pytest.raises(ValueError, match=f"3 colours, got {channels} channels .*{data_format}"):
        NormalizePixels(*IMAGENET, data_format)(np.zeros(shape, "float32"))
