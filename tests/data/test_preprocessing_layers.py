"""Layers of Keras and KerasCV in the pipeline, on every backend."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mixers.data import Augmentation, Images, train_batches
from keras_mixers.data.preprocessing_layers import apply_layers, make_layer, read_layer
from keras_mixers.models import ImageSpec

PLAIN = ImageSpec(8, mean=(0.0,) * 3, std=(1 / 255,) * 3)
KERAS_CV = ("keras_cv.RandAugment(value_range=(0, 255))", "keras_cv.MixUp()", "keras_cv.CutMix()")


def epoch(batches):
    return [np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True)]


class Spy:
    """Adds 1 to images and gives all labels to the first class; keeps what it was called with."""

    def transform_labels(self, labels):
        """What tells that it knows labels."""

    def __call__(self, inputs):
        self.specs = {name: (value.shape.as_list(), value.dtype) for name, value in inputs.items()}
        first = tf.one_hot(tf.zeros(tf.shape(inputs["labels"])[0], tf.int32), 3)
        return {"images": inputs["images"] + 1, "labels": first}


def test_layers_get_pixels_and_labels_and_their_result_is_normalised(images):
    spy = Spy()
    pixels = np.stack([image for image, _ in images.examples.as_numpy_iterator()])
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    x, y = epoch(train_batches(images, 4, ImageSpec(8, mean, std), layers=[spy]))
    assert spy.specs == {"images": ([None, 8, 8, 3], tf.float32), "labels": ([None, 3], tf.float32)}
    order = np.argsort(x[:, 0, 0, 0])
    np.testing.assert_allclose(x[order], ((pixels + 1.0) / 255 - mean) / std, atol=1e-4)
    np.testing.assert_array_equal(y, np.eye(3)[np.zeros(11, int)])


def test_others_get_the_images_alone():
    images, labels = np.full((2, 4, 4, 3), 100, "uint8"), np.eye(2)
    changed, kept = apply_layers([keras.layers.Rescaling(2.0, offset=-1.0), lambda x: x + 5], images, labels)
    np.testing.assert_allclose(changed, np.full((2, 4, 4, 3), 204.0))
    np.testing.assert_array_equal(kept, labels)


def test_kerass_flip_mirrors_images_and_keeps_labels(images):
    pixels = np.stack([image for image, _ in images.examples.as_numpy_iterator()]).astype("float32")
    x, y = epoch(train_batches(images, 11, PLAIN, layers=[keras.layers.RandomFlip("horizontal", seed=1)]))
    found = []
    for image, label in zip(np.rint(x), y, strict=True):
        (number,) = [i for i in range(11) if any((image == each).all() for each in (pixels[i], pixels[i][:, ::-1]))]
        assert label.argmax() == number % 3
        found.append((image == pixels[number]).all())
    assert 0 < sum(found) < 11


def test_kerascvs_layers_by_name_mix_images_and_labels(images):
    pytest.importorskip("keras_cv", reason="KerasCV is not installed")
    x, y = epoch(train_batches(images, 11, PLAIN, augmentation=Augmentation(layers=KERAS_CV)))
    assert (x.shape, y.shape) == ((11, 8, 8, 3), (11, 3))
    assert np.isfinite(x).all()
    assert -1 < x.min() < x.max() < 256
    assert (y.max(axis=1) < 1).any()
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)


def test_a_network_learns_from_kerascvs_rand_augment_mixup_and_cutmix():
    """`model.fit` on this backend: the loss on images as they are falls by a third."""
    pytest.importorskip("keras_cv", reason="KerasCV is not installed")
    rng, labels = np.random.default_rng(0), np.arange(96) % 3
    pixels = rng.integers(0, 80, (96, 8, 8, 3))
    pixels[np.arange(96), :, :, labels] += 150
    source = Images(tf.data.Dataset.from_tensor_slices((pixels.astype("uint8"), labels)), 96, ("a", "b", "c"))
    keras.utils.set_random_seed(0)
    half = ImageSpec(8, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.05), keras.losses.CategoricalCrossentropy(from_logits=True))
    plain = train_batches(source, 32, half)
    before = model.evaluate(plain, verbose=0)
    batches = train_batches(source, 32, half, augmentation=Augmentation(layers=KERAS_CV))

    def augmented_loss():  # KerasCV draws without a seed: three batches alone vary as much as they improve
        return np.mean([model.evaluate(batches, verbose=0) for _ in range(4)])

    augmented_before = augmented_loss()
    model.fit(batches, epochs=8, verbose=0, shuffle=False)
    assert augmented_loss() < augmented_before
    assert model.evaluate(plain, verbose=0) < 2 / 3 * before


@pytest.mark.backend_independent
def test_a_recipe_names_layers():
    assert read_layer("keras_cv.CutMix(alpha=0.5)") == ("keras_cv", "CutMix", {"alpha": 0.5})
    layer = make_layer("keras.RandomTranslation(height_factor=(-0.1, 0.1), width_factor=0.2)")
    assert isinstance(layer, keras.layers.RandomTranslation)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "text",
    ["RandAugment()", "os.system('true')", "keras_cv.layers.MixUp()", "keras_cv.MixUp", "keras_cv.MixUp(0.5)",
     "keras_cv.MixUp(alpha=open('file'))", "keras_cv.MixUp(**{'alpha': 1})", "keras_cv.MixUp(", 5],
)  # fmt: skip
def test_refuses_what_is_no_layer_by_name(text):
    with pytest.raises(ValueError, match="layers must be named as in 'keras_cv.RandAugment") as refusal:
        Augmentation(layers=(text,))
    assert repr(text) in str(refusal.value)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keras.RandomFlop()", "keras.layers has no layer 'RandomFlop'"),
        ("keras.deserialize(config={})", "keras.layers has no layer 'deserialize'"),
        ("keras.RandomFlip(mod='horizontal')", "keras.RandomFlip.* is refused by its layer: .*mod"),
    ],
)
def test_refuses_layers_that_are_not_there(text, message):
    with pytest.raises(ValueError, match=message):
        make_layer(text)


@pytest.mark.backend_independent
def test_layers_stand_alone(images):
    flip = keras.layers.RandomFlip("horizontal")
    with pytest.raises(ValueError, match=r"layers replace the other steps, got flip=True, mixup=0.5 beside them"):
        train_batches(images, 4, PLAIN, layers=[flip], augmentation=Augmentation(flip=True, mixup=0.5))
    with pytest.raises(ValueError, match="layers replace the other steps, got translate=2"):
        Augmentation(translate=2, layers=KERAS_CV)
    train_batches(images, 4, PLAIN, layers=[flip], augmentation=Augmentation(crop_scale=(0.5, 1)))
    for layers in (flip, "keras_cv.MixUp()", [3]):
        with pytest.raises(ValueError, match="layers must be"):
            train_batches(images, 4, PLAIN, layers=layers)


@pytest.mark.backend_independent
def test_says_that_kerascv_is_missing(monkeypatch):
    find = make_layer.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "keras_cv" else find(name))
    with pytest.raises(ImportError, match=r"'keras_cv.MixUp\(\)' needs KerasCV.*pip install"):
        make_layer("keras_cv.MixUp()")
