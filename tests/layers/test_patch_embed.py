import keras
import numpy as np
import pytest
import reference
from agreement import OTHER_OPTIONS, array, assert_equals_reference, both_formats, built

from keras_mixers.layers import PatchEmbed

IMAGE = (2, 13, 10, 3)


@both_formats
@pytest.mark.parametrize(
    ("patch_size", "stride", "options"),
    [
        (2, 2, {}),
        (5, 5, {}),
        (4, 4, {"padding": "same"}),
        (3, 2, {}),  # from here on patches overlap
        (3, 2, {"padding": "same"}),
        (4, 2, {"padding": "same"}),
        (5, 1, {}),  # as many columns as channels
        (8, 3, {"padding": "same"}),
        *((4, 4, options) for options in OTHER_OPTIONS),
    ],
    ids=str,
)
def test_equals_reference(patch_size, stride, options, data_format, rng, randomize):
    layer = PatchEmbed(6, patch_size, stride=stride, data_format=data_format, **options)
    assert_equals_reference(reference.patch_embed, layer, rng.normal(size=IMAGE), randomize, stride=stride, **options)


def test_patches_do_not_overlap_unless_asked():
    assert PatchEmbed(6, 4).compute_output_shape((None, 32, 24, 3)) == (None, 8, 6, 6)
    assert PatchEmbed(6, 4, stride=2).compute_output_shape((None, 32, 24, 3)) == (None, 15, 11, 6)


@pytest.mark.parametrize(("patch_size", "dim", "channels"), [(2, 256, 3), (7, 64, 1)])
def test_count_of_parameters(patch_size, dim, channels):
    layer = built(PatchEmbed(dim, patch_size), (None, 32, 32, channels))
    convolution, norm = patch_size**2 * channels * dim + dim, 2 * dim
    assert sum(np.prod(weight.shape) for weight in layer.trainable_weights) == convolution + norm


@pytest.mark.parametrize("shape", [(1, 3, 8, 3), (1, 8, 3, 3)])
def test_refuses_an_image_smaller_than_a_patch(shape):
    with pytest.raises(ValueError, match=r"patch_size.*4"):
        PatchEmbed(6, 4)(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=r"patch_size.*4"):
        PatchEmbed(6, 4).compute_output_shape(shape)


def test_same_padding_takes_an_image_smaller_than_a_patch():
    assert PatchEmbed(6, 4, padding="same")(np.zeros((1, 3, 8, 3), "float32")).shape == (1, 1, 2, 6)


def test_one_layer_takes_images_of_several_sizes(rng, randomize):
    layer = PatchEmbed(6, 2)
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    randomize(model)
    whole = rng.normal(size=(1, 8, 6, 3)).astype("float32")
    corner = whole[:, :4, :2]
    np.testing.assert_allclose(array(model(whole))[:, :2, :1], array(model(corner)), atol=1e-6)
