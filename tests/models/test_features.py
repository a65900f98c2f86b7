"""Taps and pyramids are what a network's layers compute one by one, and are made of its own layers."""

import keras
import numpy as np
import pytest
from small_networks import for_all_builders, small

import keras_mixers
from keras_mixers import feature_extractor, feature_pyramid

BLOCKS = [f"block_{i}_{kind}" for i in range(2) for kind in ("spatial", "channel")]
OPTIONS = {
    "no top": {"include_top": False},
    "maximum": {"include_top": False, "pooling": "max"},
    "residual around both": {"residual": "both"},
    "no residual, norm or activation": {"residual": None, "normalization": None, "activation": None},
    "layer norm": {"normalization": "layer"},
    "overlapping patches": {"patch_size": 4, "patch_stride": 2},
    "dropout": {"drop_path_rate": 0.5, "dropout_rate": 0.5},
    "raw pixels": {"preprocessing": keras_mixers.get_preset("splitmixer_i_256_8").pixels},
}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 8, 10, 3)).astype("float32")


def one_by_one(model, x):
    """Give what each layer of a network computes, from a copy of what the one before it gave."""
    outputs = {}
    for layer in model.layers[1:]:
        x = outputs[layer.name] = array(layer(x)).copy()
    return outputs


def both_ways(model, images):
    """Give the outputs of a model when it is called, where gradients may be needed, and of predict."""
    return {name: array(x) for name, x in model(images).items()}, model.predict(images, verbose=0)


def assert_equal_maps(maps, expected, **tolerance):
    assert set(maps) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(maps[name], value, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}, err_msg=name)


def assert_taps_are_layers(model, images):
    expected = one_by_one(model, images)
    expected = {name: expected[name] for name in ["patch_embed", *BLOCKS, "norm", "pool"] if name in expected}
    assert len(expected) >= 5
    for maps in both_ways(feature_extractor(model), images):
        assert_equal_maps(maps, expected)


@for_all_builders
def test_taps_are_what_layers_compute_one_by_one(builder, images, randomize):
    assert_taps_are_layers(randomize(small(builder)), images)


@pytest.mark.backend_independent
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_taps_of_every_option(options, images, randomize):
    assert_taps_are_layers(randomize(small("ConvMixer", **options)), images)


@pytest.mark.parametrize("make", [feature_extractor, lambda model: feature_pyramid(model, strides=(1, 2, 4))])
@pytest.mark.parametrize("options", [{}, {"include_top": False}])
def test_maps_are_in_the_layout_of_the_images(make, options, images, randomize):
    last, first = small(**options), small(data_format="channels_first", **options)
    first.set_weights(randomize(last).get_weights())
    expected = {name: array(x) for name, x in make(last)(images).items()}
    expected = {name: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for name, x in expected.items()}
    for maps in both_ways(make(first), images.transpose(0, 3, 1, 2)):
        assert_equal_maps(maps, expected)


@pytest.mark.backend_independent
def test_takes_the_named_layers():
    model = small()
    assert set(feature_extractor(model).output) == {"patch_embed", *BLOCKS, "pool"}
    assert set(feature_extractor(model, ["pool", "block_0_spatial"]).output) == {"pool", "block_0_spatial"}
    assert set(feature_extractor(model, "block_1_channel").output) == {"block_1_channel"}
    assert "block_1_channel" not in {layer.name for layer in feature_extractor(model, "block_1_spatial").layers}


@pytest.mark.backend_independent
@pytest.mark.parametrize("make", [feature_extractor, lambda model: feature_pyramid(model, strides=(1, 2, 4))])
def test_maps_have_the_dtype_in_which_layers_compute(make, images):
    model = small(dtype="mixed_bfloat16", data_format="channels_first")
    maps = make(model)(images.transpose(0, 3, 1, 2))
    dtypes = {name: keras.backend.standardize_dtype(x.dtype) for name, x in maps.items()}
    assert dtypes == {name: "float32" if name == "pool" else "bfloat16" for name in maps}
    assert make(model).dtype_policy == model.dtype_policy


def test_survives_files(images, randomize, tmp_path):
    model = randomize(small(data_format="channels_first"))
    images = images.transpose(0, 3, 1, 2)
    expected = {name: array(x) for name, x in feature_extractor(model)(images).items()}
    model.save(tmp_path / "model.keras")
    again = feature_extractor(keras.models.load_model(tmp_path / "model.keras"))
    again.save(tmp_path / "features.keras")
    for features in (again, keras.models.load_model(tmp_path / "features.keras")):
        assert_equal_maps({name: array(x) for name, x in features(images).items()}, expected, rtol=0, atol=0)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_trains_the_network_up_to_its_taps(data_format, images, randomize):
    model = randomize(small(data_format=data_format))
    images = images if data_format == "channels_last" else images.transpose(0, 3, 1, 2)
    pyramid = feature_pyramid(model, "block_1_spatial", strides=(1, 4))
    image = keras.Input(model.input_shape[1:])
    maps = [keras.layers.GlobalMaxPooling2D(data_format=data_format)(x) for x in pyramid(image).values()]
    outer = keras.Model(image, keras.layers.Dense(1)(keras.layers.concatenate(maps)))
    outer.compile(keras.optimizers.SGD(0.1), "mse")
    before = [array(weight).copy() for weight in model.trainable_weights]
    outer.fit(images, np.ones(len(images), "float32"), epochs=1, verbose=0)
    weights = zip(model.trainable_weights, before, strict=True)
    kept = {weight.path.split("/")[0] for weight, value in weights if (array(weight) == value).all()}
    assert kept == {"block_1_channel", "head"}


def averaged(maps, factor):
    batch, height, width, channels = maps.shape
    return maps.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def interpolated(maps, factor):
    """Interpolate linearly between the centres of positions, along the height, then the width."""
    for axis in (1, 2):
        size = maps.shape[axis]
        centers = (np.arange(size * factor) + 0.5) / factor - 0.5
        maps = np.apply_along_axis(lambda line, at: np.interp(at, np.arange(len(line)), line), axis, maps, centers)
    return maps


@pytest.mark.parametrize("layer", [None, "patch_embed", "block_0_spatial"])
@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_a_pyramid_is_one_map_averaged_and_interpolated(layer, size, rng, randomize):
    model = randomize(small(patch_size=4))
    images = rng.standard_normal((2, *size, 3)).astype("float32")
    maps = one_by_one(model, images)[layer or "block_1_channel"]
    expected = {
        "stride_1": interpolated(maps, 4),
        "stride_2": interpolated(maps, 2),
        "stride_4": maps,
        "stride_8": averaged(maps, 2),
        "stride_16": averaged(maps, 4),
    }
    pyramid = feature_pyramid(model, layer, strides=(1, 2, 4, 8, 16))
    for found in both_ways(pyramid, images):
        assert_equal_maps(found, expected)
        assert all(x.shape[1:3] == tuple(side // int(name[7:]) for side in size) for name, x in found.items())


@pytest.mark.backend_independent
@pytest.mark.parametrize("last", ["norm", "block_1_channel"])
def test_a_pyramid_is_of_the_norm_after_the_last_block(last, images, randomize):
    model = randomize(small("gMLP", final_normalization="layer" if last == "norm" else None))
    expected = feature_pyramid(model, last, strides=(2, 4)).predict(images, verbose=0)
    assert_equal_maps(feature_pyramid(model, strides=(2, 4)).predict(images, verbose=0), expected)


@pytest.mark.backend_independent
def test_a_pyramid_takes_no_parameters():
    model = small()
    maps = feature_extractor(model, "block_1_channel")
    assert feature_pyramid(model).count_params() == maps.count_params()


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("options", "strides"),
    [
        ({}, (4, 8, 16, 32)),
        ({"patch_size": 7}, (1, 7, 14, 28)),
        ({"patch_size": 7, "patch_stride": 4}, (2, 4, 8)),
        ({"patch_size": 6}, 3),
        ({"patch_size": 6}, np.arange(6, 13, 6)),
    ],
)
def test_a_pyramid_takes_multiples_and_fractions_of_the_stride(options, strides):
    names = {f"stride_{stride}" for stride in np.atleast_1d(strides)}
    pyramid = feature_pyramid(small(**options), strides=strides)
    assert set(pyramid.output) == names


@pytest.mark.backend_independent
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (7, 10), 3, (), (0, 7), (-7,), (3.5,)])
def test_refuses_strides_that_do_not_fit(strides):
    with pytest.raises(ValueError, match=r"network's stride of 7 pixels, got strides=\(.*\); 7, 14 and 28 would do\."):
        feature_pyramid(small(patch_size=7), strides=strides)


@pytest.mark.backend_independent
def test_refuses_strides_larger_than_the_images():
    with pytest.raises(ValueError, match=r"strides must be at most 16 .* got strides=\(4, 32\)"):
        feature_pyramid(small(input_shape=(16, 20, 3)), strides=(4, 32))


@pytest.mark.backend_independent
@pytest.mark.parametrize("make", [feature_extractor, feature_pyramid])
def test_refuses_what_it_does_not_know(make):
    with pytest.raises(ValueError, match="no features of a layer named 'block_1_chanel'; did you mean 'block_1_channe"):
        make(small(), "block_1_chanel")
    with pytest.raises(ValueError, match="no features of a layer named 'head'"):
        make(small(), "head")
    with pytest.raises(ValueError, match=f"{make.__name__} takes a network of keras_mixers, got 'other' of Functional"):
        make(keras.Model(image := keras.Input((8, 8, 3)), keras.layers.ReLU()(image), name="other"))
    with pytest.raises(ValueError, match=f"{make.__name__} takes a network of keras_mixers, got None of NoneType"):
        make(None)


@pytest.mark.backend_independent
def test_refuses_no_layers_and_a_pyramid_of_means():
    with pytest.raises(ValueError, match=r"layers must name at least one layer, got layers=\[\]"):
        feature_extractor(small(), [])
    with pytest.raises(ValueError, match="no features of a layer named 'pool'"):
        feature_pyramid(small(), "pool")
