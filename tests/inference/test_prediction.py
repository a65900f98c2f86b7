"""What a trained network says about images, in every form that a network has."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_images import CLASSES, colored, write_class_folders
from PIL import Image

import keras_mixers
from keras_mixers.data import Images, load_folder
from keras_mixers.inference import evaluate_images, load_trained, predict_images
from keras_mixers.models import ImageSpec
from keras_mixers.models.image_files import read_image

PIXELS = ImageSpec(8, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3), crop_fraction=0.8)
PHOTOGRAPHS, LABELS = colored(12, 20)


def network(**options):
    keras.utils.set_random_seed(0)
    options = {"num_classes": 3, "data_format": "channels_last", **options}
    model = keras_mixers.create_model("splitmixer_i_256_8", dim=8, blocks=1, kernel_size=3, **options)
    model.pixels, model.class_names = PIXELS, CLASSES
    return model


def as_images(labels=LABELS, class_names=CLASSES):
    return Images(tf.data.Dataset.from_tensor_slices((PHOTOGRAPHS, labels)), len(labels), class_names)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.fixture(scope="module")
def expected():
    """Probabilities as computed from the definition: crop, normalise, network, softmax."""
    model = network()
    return softmax(model.predict(PIXELS.preprocess(PHOTOGRAPHS, data_format="channels_last"), verbose=0))


FORMS = {
    "logits": {},
    "softmax": {"classifier_activation": "softmax"},
    "raw pixels": {"preprocessing": PIXELS},
    "channels first": {"data_format": "channels_first", "input_shape": (3, 8, 8)},
}


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_are_the_same_in_every_form(form, expected):
    found = predict_images(network(**FORMS[form]), PHOTOGRAPHS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_heads_whose_outputs_are_probabilities_are_taken_as_they_are():
    """A sigmoid gives one for each class, which need not sum to 1; a Softmax layer has no `activation`."""
    sigmoid = network(classifier_activation="sigmoid")
    images = PIXELS.preprocess(PHOTOGRAPHS, data_format="channels_last")
    logits = network().predict(images, verbose=0)
    np.testing.assert_allclose(predict_images(sigmoid, PHOTOGRAPHS), 1 / (1 + np.exp(-logits)), atol=1e-5)
    plain = network()
    model = keras.Model(plain.input, keras.layers.Softmax()(plain.output))
    model.pixels = PIXELS
    np.testing.assert_allclose(predict_images(model, PHOTOGRAPHS), softmax(logits), atol=1e-5)


def test_batches_give_what_single_images_give_and_files_what_arrays_give(expected, tmp_path):
    np.testing.assert_allclose(predict_images(network(), PHOTOGRAPHS, batch_size=5), expected, atol=1e-5)
    Image.fromarray(PHOTOGRAPHS[3]).save(tmp_path / "3.png")
    np.testing.assert_allclose(predict_images(network(), [tmp_path / "3.png"]), expected[3:4], atol=1e-5)


def test_grey_images_are_read_as_colours(tmp_path):
    grey = PHOTOGRAPHS[0, ..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("form", FORMS)
def test_evaluates_as_the_definitions_say(form, expected):
    labels = np.array([2, 0, 1] * 4)
    found = evaluate_images(network(**FORMS[form]), as_images(labels), batch_size=5)
    true = expected[np.arange(12), labels]
    assert found == {
        "images": 12,
        "top1": (expected.argmax(1) == labels).mean(),
        "top5": 1.0,
        "loss": pytest.approx(-np.log(true).mean(), rel=1e-3),
    }


@pytest.mark.parametrize("form", FORMS)
def test_flipping_averages_over_both_directions(form, expected):
    mirrored = predict_images(network(), PHOTOGRAPHS[:, :, ::-1])
    labels = (expected * mirrored).argmax(1)
    found = evaluate_images(network(**FORMS[form]), as_images(labels), flip=True)
    assert found["top1_flipped"] == 1
    assert found["top1"] == (expected.argmax(1) == labels).mean()
    others = evaluate_images(network(**FORMS[form]), as_images((labels + 1) % 3), flip=True)
    assert others["top1_flipped"] == 0


def test_of_many_classes_five_count():
    model = network(num_classes=9)
    model.class_names = None
    names = tuple("abcdefghi")
    order = np.argsort(-predict_images(model, PHOTOGRAPHS), axis=1)
    for place in (0, 4, 5):
        found = evaluate_images(model, as_images(order[:, place], names))
        assert (found["top1"], found["top5"]) == (float(place < 1), float(place < 5))


def test_a_network_that_prefers_nothing_is_right_about_the_first_class_only():
    model = network()
    head = model.get_layer("head")
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    assert evaluate_images(model, as_images())["top1"] == pytest.approx((LABELS == 0).mean())
    head.set_weights([np.full_like(weight, np.nan) for weight in head.get_weights()])
    found = evaluate_images(model, as_images())
    assert found["top1"] < 1
    assert np.isnan(found["loss"])


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (("blue", "green"), "The network tells 3 classes apart, the images have 2"),
        (("blue", "grey", "red"), "class 1 is 'green' to the network, and 'grey' is that of the images"),
    ],
)
def test_refuses_images_of_other_classes(class_names, message):
    with pytest.raises(ValueError, match=message):
        evaluate_images(network(), as_images(LABELS % 2, class_names))


@pytest.mark.parametrize("cut", [True, False])
def test_names_a_damaged_image(cut, tmp_path):
    """One that is cut, and one whose end is whole."""
    folder = write_class_folders(tmp_path, 6, 20)
    path = folder / "green" / "004.png"
    damage(path)
    path.write_bytes(path.read_bytes()[: -9 if cut else None])
    with pytest.raises(ValueError, match=rf"The image '{path}' cannot be read: it is gone, no image, or damaged"):
        evaluate_images(network(), load_folder(folder))
    with pytest.raises(ValueError, match=rf"The image '{path}' cannot be read: it is no image, or damaged"):
        predict_images(network(), [path])


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, r"images must be a list of at least one image, got images=\[\]"),
        ("dog.jpg", ValueError, r"images must be a list of at least one image, got images='dog.jpg'"),
        (["dog.jpg"], FileNotFoundError, r"There is no image at 'dog.jpg'"),
        (["."], ValueError, r"The image '.' cannot be read: Is a directory"),
        ([np.full((8, 8, 3), 300)], ValueError, r"Pixels must lie from 0 to 255, got 300 to 300"),
    ],
    ids=str,
)
def test_refuses_what_is_no_image(images, error, message):
    with pytest.raises(error, match=message):
        predict_images(network(), images)


def test_reads_what_was_saved(tmp_path):
    model = network()
    model.save(tmp_path / "model.keras")
    read = load_trained(tmp_path / "model.keras")
    assert (read.pixels, read.class_names) == (PIXELS, CLASSES)
    np.testing.assert_allclose(predict_images(read, PHOTOGRAPHS), predict_images(model, PHOTOGRAPHS), atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("weights"), r"is no .keras file, or was cut short; train writes model.keras"),
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), r"is no .keras file, or was cut short"),
        (damage, r"is damaged, or no network that can be loaded: Bad CRC-32 for file"),
        (lambda path: zipfile.ZipFile(path, "w").close(), r"is damaged, or no network .* loaded: .*config.json"),
        (lambda path: keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)]).save(path),
         r"is damaged, or no network that can be loaded: Requested the deserialization of a `Lambda` layer"),
        (lambda path: network(include_top=False).save(path), r"gives no classes; build it with include_top=True"),
        (lambda path: keras_mixers.SplitMixerI(8, 1).save(path), r"does not say which pixels it takes: set model"),
        (lambda path: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path), r"does not say which"),
    ],
    ids=["text", "cut", "damaged", "empty", "lambda", "no top", "no pixels", "plain Keras"],
)  # fmt: skip
def test_refuses_a_file_that_is_no_trained_network(spoil, message, tmp_path):
    network().save(tmp_path / "model.keras")
    spoil(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message) as caught:
        load_trained(tmp_path / "model.keras")
    assert "\n" not in str(caught.value)


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no network at '.*none.keras'; train writes model.keras"):
        load_trained(tmp_path / "none.keras")
