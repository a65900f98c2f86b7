"""Weights that come with the package: by name, on every backend, in both data formats; their cards; refusals."""

import dataclasses
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_mixers
from keras_mixers.data import DATASETS
from keras_mixers.inference import load_trained, predict_images
from keras_mixers.models import ImageSpec, get_preset, presets, register_preset
from keras_mixers.weights import WeightsCard, packaged_weights, read_card
from keras_mixers.weights.packaged import FOLDER, round_weights, write_weights

NAME = "splitmixer_iii_256_8_s4"
CLASSES = tuple("abcdefghij")
CARD = WeightsCard(
    model=NAME,
    dataset="cifar10",
    class_names=CLASSES,
    pixels=json.loads(json.dumps(dataclasses.asdict(get_preset(NAME).pixels))),
    top1=90.0,
    top1_flipped=90.5,
    published=None,
    recipe="cifar10_fast",
    changes="",
    epochs=30,
    seed=42,
    minutes=1.5,
    machine="a CPU",
    command="python ...",
    commit="abc1234",
    stored_as="float16",
)


@pytest.fixture
def packaged(tmp_path, monkeypatch, randomize):
    """A network whose weights are in the package, in float16."""
    monkeypatch.setattr("keras_mixers.weights.packaged.FOLDER", tmp_path)
    model = randomize(keras_mixers.create_model(NAME, data_format="channels_last"))
    round_weights(model, "float16")
    write_weights(model, CARD, tmp_path)
    return model


def test_weights_by_name_in_both_data_formats(packaged, rng):
    images = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    expected = packaged.predict(images, verbose=0)
    for data_format, batch in (("channels_last", images), ("channels_first", np.moveaxis(images, -1, 1))):
        model = keras_mixers.create_model(NAME, weights="cifar10", data_format=data_format)
        np.testing.assert_allclose(model.predict(batch, verbose=0), expected, rtol=1e-4, atol=1e-5)
        assert (model.class_names, model.pixels) == (CLASSES, get_preset(NAME).pixels)
    assert [*get_preset(NAME).weights] == ["cifar10"]


def test_weights_take_the_images_of_their_card(packaged, tmp_path):
    enlarged = dataclasses.replace(get_preset(NAME).pixels, crop_fraction=0.875)
    card = dataclasses.replace(CARD, pixels=dataclasses.asdict(enlarged))
    write_weights(packaged, card, tmp_path)
    assert load_trained(f"{NAME}:cifar10").pixels == get_preset(NAME).pixels_of("cifar10") == enlarged
    assert keras_mixers.create_model(NAME).pixels == get_preset(NAME).pixels != enlarged


def test_a_row_of_ones_own_names_a_file_of_keras(monkeypatch, tmp_path):
    monkeypatch.setattr("keras_mixers.models.presets.PRESETS", dict(presets.PRESETS))
    model = keras_mixers.create_model(NAME)
    model.save(tmp_path / "mine.keras")
    row = dataclasses.replace(get_preset(NAME), weights={"photos": str(tmp_path / "mine.keras")})
    register_preset("mine", row)
    mine = keras_mixers.create_model("mine", weights="photos")
    assert get_preset("mine").pixels_of("photos") == mine.pixels == row.pixels
    for pair in zip(mine.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(*pair)


def test_the_card_survives_the_file(packaged):
    card = read_card(packaged_weights(NAME)["cifar10"])
    assert dataclasses.asdict(card) == dataclasses.asdict(CARD)
    pixels = {name: tuple(value) if isinstance(value, list) else value for name, value in card.pixels.items()}
    assert ImageSpec(**pixels) == get_preset(NAME).pixels


def test_a_network_by_name_predicts_like_its_file(packaged, tmp_path, rng):
    packaged.pixels, packaged.class_names = get_preset(NAME).pixels, CLASSES
    photographs = rng.integers(0, 256, (3, 40, 48, 3)).astype("uint8")
    named = load_trained(f"{NAME}:cifar10")
    assert named.class_names == CLASSES
    assert named.input_shape == (None, 32, 32, 3)
    expected = predict_images(packaged, photographs)
    np.testing.assert_allclose(predict_images(named, photographs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.backend_independent
def test_a_new_head_has_no_class_names(packaged):
    model = keras_mixers.create_model(NAME, weights="cifar10", num_classes=7, new_head=True)
    assert not getattr(model, "class_names", None)
    embedding, own = (each.get_layer("patch_embed").get_weights() for each in (packaged, model))
    assert all(np.array_equal(*pair) for pair in zip(embedding, own, strict=True))


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 100}, r"head.weight \(10, 256\) where the model has \(100, 256\).*new_head"),
        ({"weights": "cifar100"}, "'cifar10', got weights='cifar100'"),
        ({"segments": 2}, "mixer_blocks"),
    ],
)
def test_refuses_other_data_sets_classes_and_networks(packaged, arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mixers.create_model(NAME, **{"weights": "cifar10", **arguments})


@pytest.mark.backend_independent
def test_refuses_names_that_are_none(packaged):
    with pytest.raises(ValueError, match="'splitmixer_iii_256_8_s5'; did you mean 'splitmixer_iii_256_8_s4'"):
        load_trained("splitmixer_iii_256_8_s5:cifar10")
    with pytest.raises(ValueError, match="'cifar10', got weights='cifar'"):
        load_trained(f"{NAME}:cifar")


@pytest.mark.backend_independent
def test_refuses_a_damaged_file_and_an_unknown_dtype(packaged, tmp_path):
    with pytest.raises(ValueError, match="stored_as must be .*'int8'"):
        write_weights(packaged, dataclasses.replace(CARD, stored_as="int8"), tmp_path)
    path = Path(packaged_weights(NAME)["cifar10"])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        keras_mixers.create_model(NAME, weights="cifar10")


@pytest.fixture(scope="module")
def cifar10():
    """The first 200 test images of CIFAR-10, and their labels."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "load.py").exists():
        pytest.skip(f"{folder} with CIFAR-10 is absent")
    sys.path.insert(0, str(folder))
    try:
        import load
    finally:
        sys.path.remove(str(folder))
    return [part[:200] for part in load.read_part(folder / "cifar10" / "test.npz")]


@pytest.mark.backend_independent
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.name)
def test_classes_have_names(path):
    """Those that TFDS gives them, or `evaluate` would refuse its images."""
    card = read_card(path)
    assert card.class_names == DATASETS[card.dataset].class_names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cifar10.safetensors")), ids=lambda path: path.name)
def test_packaged_networks_classify(path, cifar10):
    """200 images: within three standard errors of the accuracy on all 10,000."""
    card, (images, labels) = read_card(path), cifar10
    probabilities = predict_images(load_trained(f"{card.model}:{card.dataset}"), images)
    share = card.top1 / 100
    assert abs((probabilities.argmax(1) == labels).mean() - share) < 3 * np.sqrt(share * (1 - share) / 200)
    keras.backend.clear_session()


def test_logits_of_trained_weights_are_those_of_float64():
    """Trained norms enlarge small errors, up to 10,000 times in channels that are all but constant."""
    torch = pytest.importorskip("torch", reason="the network is computed in float64 by PyTorch")
    from drawn_images import scenes
    from torch_networks import TimmConvMixer

    model = keras_mixers.create_model("convmixer_256_8_p2_k5", weights="cifar10")
    reference = TimmConvMixer(256, 8, 5, 2, 10)
    reference.load_state_dict(keras_mixers.to_torch_state_dict(model, "timm"), strict=False)
    images = ((scenes(16, 32) / 255 - model.pixels.mean) / model.pixels.std).astype("float32")
    with torch.no_grad():
        expected = reference.double().eval()(torch.tensor(images).double().permute(0, 3, 1, 2)).numpy()
    logits = model.predict(images, verbose=0)
    assert np.abs(logits - expected).max() < 2e-6 * np.abs(expected).max()
