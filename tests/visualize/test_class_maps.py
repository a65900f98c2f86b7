"""Class maps are the parts of a logit, on every backend the numbers of NumPy; their figure shows them."""

import keras
import numpy as np
import pytest
import reference
from small_networks import MLP_BUILDERS, for_all_builders, small

import keras_mixers
from keras_mixers.visualize import class_activation_map, class_maps, grad_cam

CLASS = 3


@pytest.fixture
def images(rng):
    return rng.normal(size=(3, 16, 12, 3)).astype("float32")


def logits(model, images):
    return model.predict(images, verbose=0)


def bias(model):
    return keras.ops.convert_to_numpy(model.get_layer("head").bias)


@for_all_builders
def test_parts_sum_to_the_logit_less_its_bias(builder, images, randomize):
    model = randomize(small(builder, input_shape=(16, 12, 3)))
    maps = class_activation_map(model, images, CLASS)
    assert maps.shape == (3, 8, 6)
    expected = logits(model, images)[:, CLASS] - bias(model)[CLASS]
    np.testing.assert_allclose(maps.mean((1, 2)) * 8 * 6, expected, atol=1e-4)


@pytest.mark.backend_independent
@pytest.mark.parametrize("builder", MLP_BUILDERS)
def test_grad_cam_before_the_mean_is_their_positive_part(builder, images, randomize):
    """The mean is of the norm's output; from before the norm the gradient differs from patch to patch."""
    model = randomize(small(builder, input_shape=(16, 12, 3)))
    expected = class_activation_map(model, images, CLASS).clip(0)
    np.testing.assert_allclose(grad_cam(model, images, CLASS), expected, atol=1e-5)
    np.testing.assert_allclose(grad_cam(model, images, CLASS, "norm"), expected, atol=1e-5)
    if builder != "ResMLP":  # whose norm is linear
        assert np.abs(grad_cam(model, images, CLASS, "block_1_channel") - expected).max() > 1e-3


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "options",
    [{"data_format": "channels_first"}, {"classifier_activation": "softmax"}, {"dropout_rate": 0.5}],
    ids=lambda options: next(iter(options)),
)
def test_of_the_same_network_otherwise_built(options, images, randomize):
    expected = randomize(small())
    model = small(**options)
    model.set_weights(expected.get_weights())
    given = np.moveaxis(images, -1, 1) if "data_format" in options else images
    for maps in (class_activation_map, grad_cam):
        np.testing.assert_allclose(maps(model, given, CLASS), maps(expected, images, CLASS), atol=1e-5)
        np.testing.assert_allclose(maps(model, given), maps(expected, images), atol=1e-5)


@pytest.fixture
def convmixer(randomize):
    return randomize(small("ConvMixer", depth=1, patch_size=4))


def in_numpy(model, images):
    """Give the maps after the spatial mixer, and what makes of them those after the last, by tests/reference.py."""
    weights = {weight.path: keras.ops.convert_to_numpy(weight).astype("float64") for weight in model.weights}

    def of(layer):
        own = {path.rpartition("/")[2]: value for path, value in weights.items() if f"{layer}/" in f"{path}/"}
        norm = {name: own[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")}
        return own["kernel"], own["bias"], norm

    kernel, offset, norm = of("patch_embed")
    maps, _ = reference.patch_embed(images.astype("float64"), kernel, offset, norm, stride=4)
    maps, _ = reference.spatial_mixer_2d(maps, *of("block_0_spatial"))
    return maps, lambda maps: reference.channel_mixer(maps, *of("block_0_channel"))[0]


def test_are_those_of_numpy_on_every_backend(convmixer, images):
    spatial, mix_channels = in_numpy(convmixer, images)
    kernel = keras.ops.convert_to_numpy(convmixer.get_layer("head").kernel).astype("float64")[:, CLASS]
    expected = mix_channels(spatial) @ kernel / (4 * 3)
    np.testing.assert_allclose(class_activation_map(convmixer, images, CLASS), expected, atol=1e-4)
    np.testing.assert_allclose(grad_cam(convmixer, images, CLASS), expected.clip(0), atol=1e-4)

    # Before the last mixer: weights are the slopes of the logit as a whole map rises, by central differences.
    rise, dim = 1e-4, spatial.shape[-1]
    slopes = np.stack(
        [
            (mix_channels(spatial + rise * one) - mix_channels(spatial - rise * one)).mean((1, 2)) @ kernel / (2 * rise)
            for one in np.eye(dim)
        ],
        axis=1,
    )
    expected = np.einsum("nhwd,nd->nhw", spatial, slopes / (4 * 3)).clip(0)
    assert expected.max() > 0.01
    np.testing.assert_allclose(grad_cam(convmixer, images, CLASS, "block_0_spatial"), expected, atol=1e-4)


@pytest.mark.backend_independent
def test_a_class_for_each_image_or_the_most_probable(images, randomize):
    model = randomize(small())
    classes = logits(model, images).argmax(1)
    for maps in (class_activation_map, grad_cam):
        each = np.concatenate([maps(model, images[i : i + 1], int(classes[i])) for i in range(3)])
        np.testing.assert_allclose(maps(model, images, classes), each, atol=1e-5)
        np.testing.assert_allclose(maps(model, images), each, atol=1e-5)


@pytest.mark.backend_independent
def test_more_images_than_a_batch(randomize, rng):
    model, images = randomize(small()), rng.normal(size=(40, 8, 8, 3)).astype("float32")
    for maps in (class_activation_map, grad_cam):
        parts = [maps(model, images[:20], CLASS), maps(model, images[20:], CLASS)]
        np.testing.assert_allclose(maps(model, images, CLASS), np.concatenate(parts), atol=1e-5)


def test_leave_the_network_as_it_was(images, randomize):
    model = randomize(small())
    before = model.get_weights()
    grad_cam(model, images, CLASS, "patch_embed")
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.backend_independent
@pytest.mark.parametrize("maps", [class_activation_map, grad_cam])
def test_refusals(maps, images):
    model = small()
    for wrong in (5, -1, 1.5, "dog", [0, 1], [[0]]):
        with pytest.raises(ValueError, match="class_index must be a whole number from 0 to 4, or one for each of 3"):
            maps(model, images, wrong)
    with pytest.raises(ValueError, match=r"images must be a batch as .* takes it, .* got shape \(16, 12, 3\)"):
        maps(model, images[0])
    with pytest.raises(ValueError, match="images must be a batch"):
        maps(small(input_shape=(8, 8, 3)), images)
    with pytest.raises(ValueError, match="images must hold at least one image"):
        maps(model, images[:0])
    with pytest.raises(ValueError, match="model must end with a mean and a head.*include_top=True"):
        maps(small(include_top=False), images)
    with pytest.raises(ValueError, match="model must be a network of keras_mixers, got Sequential"):
        maps(keras.Sequential([keras.Input((16, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]), images)
    model.quantize("int8")
    with pytest.raises(ValueError, match="must not be quantised, got .* in int8"):
        maps(model, images)


@pytest.mark.backend_independent
def test_grad_cam_refuses_layers(images):
    with pytest.raises(ValueError, match="'block_0_spatal'; did you mean 'block_0_spatial'"):
        grad_cam(small(), images, CLASS, "block_0_spatal")
    with pytest.raises(ValueError, match="layer must give feature maps, got layer='pool'"):
        grad_cam(small(), images, CLASS, "pool")


@pytest.mark.backend_independent
def test_figure_shows_the_maps_of_the_most_probable_classes(randomize, rng):
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra visualize, is not installed")
    model = randomize(keras_mixers.create_model("splitmixer_i_256_8", dim=12, blocks=2, num_classes=4))
    model.class_names = ("cat", "dog", "eel", "fox")
    photographs = rng.integers(0, 255, (2, 40, 50, 3)).astype("uint8")
    batch = model.pixels.preprocess(photographs, data_format=keras.config.image_data_format())
    found = logits(model, batch)
    figure = class_maps(model, photographs, top=2)
    axes = [axes for axes in figure.axes if axes.images]
    for row in range(2):
        np.testing.assert_allclose(axes[3 * row].images[0].get_array(), model.pixels.crop(photographs[row]) / 255)
        probabilities = np.exp(found[row]) / np.exp(found[row]).sum()
        for panel, index in zip(axes[3 * row + 1 : 3 * row + 3], found[row].argsort()[::-1], strict=False):
            assert panel.get_title() == f"{model.class_names[index]}: {100 * probabilities[index]:.1f} %"
            shown = panel.images[-1].get_array()
            np.testing.assert_allclose(shown, class_activation_map(model, batch, int(index))[row], atol=1e-5)
