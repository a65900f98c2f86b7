"""`weights=` of the builders: files of Keras and PyTorch, names on the hub, a preset's own; new heads; refusals."""

import re

import keras
import numpy as np
import pytest
import torch
import torch_networks
from safetensors.torch import save, save_file
from small_networks import for_all_builders, small
from stand_in_hub import StandInHub

import keras_mixers

pytestmark = pytest.mark.backend_independent

FILES = ("m.weights.h5", "m.keras", "m.safetensors", "m.pth")
# What the table calls convmixer_768_32, small.
PRESET = {"dim": 12, "depth": 2, "kernel_size": 3, "patch_size": 2}


def same(model, other, but=()):
    """Tell whether all layers with weights but some have the same ones, to the bit."""
    layers = [layer for layer in other.layers if layer.weights and layer.name not in but]
    return all(
        np.array_equal(a, b)
        for layer in layers
        for a, b in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True)
    )


@pytest.fixture
def saved(tmp_path, randomize):
    """Give a function that saves a model of a builder in a file of this name, and gives the model and the path."""

    def saved(name, builder="SplitMixerI"):
        model, path = randomize(small(builder)), tmp_path / name
        if name.endswith((".keras", ".h5")):
            (model.save if name.endswith(".keras") else model.save_weights)(path)
        else:
            state = keras_mixers.to_torch_state_dict(model, torch_networks.layout_of(builder))
            (save_file if name.endswith(".safetensors") else torch.save)(state, path)
        return model, path

    return saved


@for_all_builders
@pytest.mark.parametrize("name", FILES)
def test_every_builder_loads_every_kind_of_file(builder, name, saved):
    model, path = saved(name, builder)
    assert not same(small(builder), model)
    assert same(small(builder, weights=path), model)
    assert same(small(builder, weights=str(path), data_format="channels_first"), model)


@pytest.mark.parametrize("name", FILES)
def test_a_new_head_is_initialised_and_the_rest_loaded(name, saved):
    model, path = saved(name)
    for classes in (5, 7):
        keras.utils.set_random_seed(1)
        fresh = small(num_classes=classes)
        keras.utils.set_random_seed(1)
        loaded = small(num_classes=classes, weights=path, new_head=True)
        assert same(loaded, model, but=["head"])
        assert same(loaded, fresh, but=[layer.name for layer in fresh.layers if layer.name != "head"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("new_head", [False, True])
def test_a_model_without_the_top_leaves_the_head_out(name, new_head, saved):
    model, path = saved(name)
    assert same(small(include_top=False, weights=path, new_head=new_head), model, but=["pool", "head"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change", [{"num_classes": 7}, {"blocks": 1}, {"blocks": 3}, {"dim": 13}, {"ratio": 3 / 4}, {"kernel_size": 5}]
)
def test_another_head_and_another_network_are_refused(name, change, saved):
    _, path = saved(name)
    remedy = "new_head=True" if "num_classes" in change else "build the model with the arguments"
    for new_head in (False,) if "num_classes" in change else (False, True):
        with pytest.raises(ValueError, match=remedy) as refusal:
            small(weights=path, new_head=new_head, **change)
        assert "\n" not in str(refusal.value)


def test_dropout_and_training_do_not_change_what_a_file_fits(tmp_path, rng):
    model = small(drop_path_rate=0.2, dropout_rate=0.3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(rng.standard_normal((4, 8, 8, 3)).astype("float32"), np.arange(4))
    for name, write in (("m.keras", model.save), ("m.weights.h5", model.save_weights)):
        write(tmp_path / name)
        assert same(small(weights=tmp_path / name), model, but=["head_dropout"])


def test_damaged_and_absent_files_are_refused(tmp_path):
    for name in ("m.keras", "m.weights.h5"):
        path = tmp_path / name
        with pytest.raises(FileNotFoundError, match=f"no file of weights at '{re.escape(str(path))}'"):
            small(weights=path)
        path.write_bytes(b"what is this")
        with pytest.raises(ValueError, match="is damaged or holds the weights of another network than 'splitmixer_i"):
            small(weights=path)
    for wrong in ("imagenet", tmp_path / "m.npz", "https://example.com/m", 3):
        with pytest.raises(ValueError, match="weights must be None, a file .* or a name on the hub such as 'hf://timm"):
            small(weights=wrong)


def torch_convmixer(num_classes=1000, activation="relu"):
    torch.manual_seed(0)
    arguments = {**PRESET, "num_classes": num_classes, "activation": activation}
    return torch_networks.randomize(torch_networks.counterpart("ConvMixer", arguments, "timm"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with what timm publishes, in small."""
    content = save(torch_convmixer().state_dict())
    files = {"model.safetensors": content}
    with StandInHub({"timm/convmixer_768_32.in1k": files, "me/mine": {"epoch_9.safetensors": content}}) as hub:
        hub.use(monkeypatch, tmp_path / "cache")
        yield hub


HUB_NAMES = ("imagenet", "hf://timm/convmixer_768_32.in1k", "hf://me/mine@main/epoch_9.safetensors")


@pytest.mark.parametrize("name", HUB_NAMES)
def test_names_on_the_hub_and_a_presets_own_weights(name, hub, monkeypatch, rng):
    model = keras_mixers.create_model("convmixer_768_32", **PRESET, weights=name, data_format="channels_first")
    image = rng.standard_normal((2, 3, 12, 10)).astype("float32")
    with torch.no_grad():
        expected = torch_convmixer()(torch.from_numpy(image)).numpy()
    found = keras.ops.convert_to_numpy(model(image, training=False))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.close()
    cached = keras_mixers.create_model("convmixer_768_32", **PRESET, weights=name, num_classes=3, new_head=True)
    assert same(cached, model, but=["head"])


SMALL_MIXER = {"dim": 12, "blocks": 2, "patch_size": 4, "image_size": 16}
MIXERS = {
    ("mixer_b16", "imagenet"): "mixer_b16_224.goog_in21k_ft_in1k",
    ("mixer_b16", "imagenet_miil"): "mixer_b16_224.miil_in21k_ft_in1k",
    ("gmixer_24", "imagenet"): "gmixer_24_224.ra3_in1k",
    ("resmlp_12", "imagenet_distilled"): "resmlp_12_224.fb_distilled_in1k",
    ("resmlp_big_24", "imagenet_in22k"): "resmlp_big_24_224.fb_in22k_ft_in1k",
    ("gmlp_s16", "imagenet"): "gmlp_s16_224.ra3_in1k",
}


@pytest.mark.parametrize(("name", "weights"), MIXERS)
def test_the_mlp_mixers_take_timms_weights_by_name(name, weights, monkeypatch, tmp_path, rng):
    preset = keras_mixers.get_preset(name)
    torch.manual_seed(0)
    arguments = {**SMALL_MIXER, "num_classes": 1000}
    network = torch_networks.randomize(torch_networks.counterpart(preset.builder.__name__, arguments, "timm"))
    files = {f"timm/{MIXERS[name, weights]}": {"model.safetensors": save(network.state_dict())}}
    image = rng.standard_normal((2, 3, 16, 16)).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    with StandInHub(files) as hub:
        hub.use(monkeypatch, tmp_path / "cache")
        model = keras_mixers.create_model(name, **SMALL_MIXER, weights=weights, data_format="channels_first")
        raw = keras_mixers.create_model(name, **SMALL_MIXER, weights=weights, include_preprocessing=True)
    found = keras.ops.convert_to_numpy(model(image, training=False))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    statistics = ((0.0,) * 3, (1.0,) * 3, "bilinear")
    if weights != "imagenet_miil":
        statistics = (preset.pixels.mean, preset.pixels.std, "bicubic")
    for pixels in (model.pixels, raw.pixels):
        assert (pixels.mean, pixels.std, pixels.interpolation, pixels.size) == (*statistics, 16)
    normalize = raw.get_layer("normalize_pixels")
    assert (tuple(normalize.mean), tuple(normalize.std)) == statistics[:2]


def test_a_hub_that_fails_is_one_sentence(hub):
    hub.fault = "HTTP 500"
    with pytest.raises(ConnectionError, match="'hf://timm/convmixer_768_32.in1k' .* HTTP 500; call again later"):
        keras_mixers.create_model("convmixer_768_32", **PRESET, weights="imagenet")


def test_presets_that_have_weights_of_their_own():
    assert {name: dict(preset.weights) for name, preset in keras_mixers.models.PRESETS.items() if preset.weights} == {
        "convmixer_1536_20": {"imagenet": "hf://timm/convmixer_1536_20.in1k"},
        "convmixer_768_32": {"imagenet": "hf://timm/convmixer_768_32.in1k"},
        "convmixer_1024_20_p14_k9": {"imagenet": "hf://timm/convmixer_1024_20_ks9_p14.in1k"},
        "mixer_b16": {
            "imagenet": "hf://timm/mixer_b16_224.goog_in21k_ft_in1k",
            "imagenet_miil": "hf://timm/mixer_b16_224.miil_in21k_ft_in1k",
        },
        "mixer_l16": {"imagenet": "hf://timm/mixer_l16_224.goog_in21k_ft_in1k"},
        "gmixer_24": {"imagenet": "hf://timm/gmixer_24_224.ra3_in1k"},
        **{
            f"resmlp_{size}": {
                "imagenet": f"hf://timm/resmlp_{size}_224.fb_in1k",
                "imagenet_distilled": f"hf://timm/resmlp_{size}_224.fb_distilled_in1k",
            }
            for size in (12, 24, 36)
        },
        "resmlp_big_24": {
            "imagenet": "hf://timm/resmlp_big_24_224.fb_in1k",
            "imagenet_distilled": "hf://timm/resmlp_big_24_224.fb_distilled_in1k",
            "imagenet_in22k": "hf://timm/resmlp_big_24_224.fb_in22k_ft_in1k",
        },
        "gmlp_s16": {"imagenet": "hf://timm/gmlp_s16_224.ra3_in1k"},
    }
    unknown = {"splitmixer_ii_256_8_p7_k7": ("none yet", "imagenet"), "convmixer_768_32": ("'imagenet'", "cifar10")}
    for name, (known, given) in unknown.items():
        with pytest.raises(ValueError, match=f"weights of '{name}' by name are {known}, got weights='{given}'"):
            keras_mixers.create_model(name, weights=given)
