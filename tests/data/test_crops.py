import numpy as np
import pytest
import tensorflow as tf
from drawn_images import noise, scenes
from PIL import Image

from keras_mixers.data import Augmentation
from keras_mixers.data.crops import center_crop, random_boxes, random_crop, random_crops, resize, resize_shorter_side
from keras_mixers.models import ImageSpec

pytestmark = pytest.mark.backend_independent


def test_boxes_lie_in_the_image_with_area_and_ratio_in_range():
    top, left, height, width = random_boxes(4000, (0.08, 1.0), (3 / 4, 4 / 3), 90, 120, (1, 2)).numpy().T
    assert min(top.min(), left.min(), height.min() - 1, width.min() - 1) >= 0
    assert (top + height).max() <= 90
    assert (left + width).max() <= 120
    # A side is rounded to whole pixels, by half a pixel at most.
    assert (((height + 0.5) * (width + 0.5)) >= 0.08 * 90 * 120).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()
    assert (height * width).min() < 0.1 * 90 * 120 < 0.9 * 90 * 120 < (height * width).max()
    assert top[height < 45].max() > 45 > 5 > top.min()


def test_boxes_have_uniform_areas():
    _, _, height, width = random_boxes(4000, (0.1, 0.5), (1.0, 1.0), 200, 200, (1, 2)).numpy().T
    quartiles = np.quantile(height * width / 200**2, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.2, 0.3, 0.4], atol=0.015)


def test_box_that_cannot_fit_is_cut_to_the_image():
    boxes = random_boxes(50, (1.0, 1.0), (2.0, 2.0), 60, 60, (1, 2)).numpy()
    assert (boxes[:, [0, 1, 3]] == [0, 0, 60]).all() or (boxes[:, 3] == 60).all()
    assert (boxes[:, 2] == 42).all()


def test_crop_of_the_whole_image_changes_nothing():
    pixels = tf.constant(noise(6, 32))
    whole = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1))
    np.testing.assert_array_equal(random_crops(pixels, whole, (1, 2)), pixels)
    np.testing.assert_array_equal(random_crop(pixels[0], 32, whole, (1, 2)), pixels[0])
    np.testing.assert_array_equal(random_crop(pixels[0], 32, Augmentation(), (1, 2)), pixels[0])


def test_crops_of_a_batch_equal_crops_that_are_resized():
    pixels = tf.constant(scenes(20, 32))
    augmentation = Augmentation(crop_scale=(0.3, 1), crop_ratio=(3 / 4, 4 / 3))
    crops = random_crops(pixels, augmentation, (1, 2)).numpy().astype(int)
    boxes = random_boxes(20, (0.3, 1), (3 / 4, 4 / 3), 32, 32, (1, 2)).numpy()
    for image, crop, (top, left, height, width) in zip(pixels, crops, boxes, strict=True):
        resized = resize(image[top : top + height, left : left + width], (32, 32), "bilinear").numpy().astype(int)
        # At the edge one interpolates with the image beyond the crop, the other has only the crop.
        assert np.abs(crop - resized)[2:-2, 2:-2].max() <= 1


def test_resize_230_crop_224():
    image = tf.constant(scenes(1, 300)[0][:250])
    augmentation = Augmentation(resize=230)
    resized = resize_shorter_side(image, 230, "bilinear").numpy()
    assert resized.shape == (230, 276, 3)
    crops = {tuple(map(int, find(resized, random_crop(image, 224, augmentation, (0, i)).numpy()))) for i in range(8)}
    assert len(crops) > 4
    assert all(0 <= top <= 6 and 0 <= left <= 52 for top, left in crops)


def find(image, crop):
    """Where the crop lies in the image."""
    size = len(crop)
    corners = np.ndindex(image.shape[0] - size + 1, image.shape[1] - size + 1)
    return next(c for c in corners if (image[c[0] : c[0] + size, c[1] : c[1] + size] == crop).all())


@pytest.mark.parametrize(("method", "pillow"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
def test_resizing_equals_pillow(method, pillow):
    image = noise(1, 90)[0][:70]
    resized = resize(tf.constant(image), (32, 41), method).numpy().astype(int)
    assert np.abs(resized - np.asarray(Image.fromarray(image).resize((41, 32), pillow))).max() <= 1


def test_center_crop_of_a_photograph_equals_pillow(imagenette):
    path = sorted((imagenette / "val" / "tench").iterdir())[0]
    image = Image.open(path).convert("RGB")
    spec = ImageSpec(224, (0.5,) * 3, (0.5,) * 3, crop_fraction=224 / 233)
    size = [233 * side // min(image.size) for side in image.size]
    left, top = (round((side - 224) / 2) for side in size)
    expected = np.asarray(image.resize(size, Image.BICUBIC)).astype(int)[top : top + 224, left : left + 224]
    ours = center_crop(tf.constant(np.asarray(image)), spec).numpy().astype(int)
    assert ours.shape == (224, 224, 3)
    # Pillow multiplies in fixed point; a first pass that differs by 1 can make the second differ by 2.
    assert np.abs(ours - expected).max() <= 2
    assert (np.abs(ours - expected) > 1).mean() < 1e-4
    np.testing.assert_array_equal(spec.crop(np.asarray(image)), expected)
