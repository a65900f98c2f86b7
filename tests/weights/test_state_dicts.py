"""State dicts of PyTorch networks go into models and come back to the bit; what is not one is refused, with names."""

import argparse
import re

import keras
import numpy as np
import pytest
import torch
import torch_networks
from safetensors.torch import save_file

import keras_mixers
from keras_mixers import layers, load_torch_weights, to_torch_state_dict

pytestmark = pytest.mark.backend_independent

SMALL = {"dim": 12, "kernel_size": 4, "patch_size": 2, "num_classes": 5}
# Every network in every layout in which it is published.
NETWORKS = {
    "timm ConvMixer": ("ConvMixer", {"depth": 2}, "timm"),
    "ConvMixer": ("ConvMixer", {"depth": 3}, "convmixer"),
    "I": ("SplitMixerI", {"blocks": 3, "ratio": 3 / 5}, "splitmixer"),
    "II": ("SplitMixerII", {"blocks": 4, "segments": 3}, "splitmixer"),
    "III": ("SplitMixerIII", {"blocks": 2, "segments": 3}, "splitmixer"),
    "IV": ("SplitMixerIV", {"blocks": 2, "segments": 5}, "splitmixer"),
    "V": ("SplitMixerV", {"blocks": 2, "ratio": 2 / 3}, "splitmixer"),
    "I printed": ("SplitMixerI", {"blocks": 2, "ratio": 2 / 3}, "convmixer"),
    "II printed": ("SplitMixerII", {"blocks": 2, "segments": 2}, "convmixer"),
    "III printed": ("SplitMixerIII", {"blocks": 2, "segments": 2}, "convmixer"),
    "IV printed": ("SplitMixerIV", {"blocks": 2, "segments": 2}, "convmixer"),
    "V printed": ("SplitMixerV", {"blocks": 2, "ratio": 2 / 3}, "convmixer"),
    "3D": ("StrideMixer", {"blocks": 2, "channel_kernel_size": 6, "channel_stride": 2}, "splitmixer"),
    "timm MLP-Mixer": ("MLPMixer", {"blocks": 2, "token_ratio": 0.75}, "timm"),
    "timm gMixer": ("gMixer", {"blocks": 3}, "timm"),
    "timm ResMLP": ("ResMLP", {"blocks": 2, "channel_ratio": 3.0}, "timm"),
    "ResMLP": ("ResMLP", {"blocks": 3}, "resmlp"),
    "timm gMLP": ("gMLP", {"blocks": 2}, "timm"),
}
IMAGE = (11, 14)


def arguments_of(network):
    builder, arguments, _ = NETWORKS[network]
    arguments = {**SMALL, **arguments}
    if builder in torch_networks.MLP_MIXERS:  # which mix the patches of one size
        del arguments["kernel_size"]
        arguments["input_shape"] = (*IMAGE, 3)
    return arguments


def keras_model(network="timm ConvMixer", **options):
    arguments = {**arguments_of(network), "data_format": "channels_last", **options}
    if arguments["data_format"] == "channels_first" and "input_shape" in arguments:
        arguments["input_shape"] = (3, *IMAGE)
    return getattr(keras_mixers, NETWORKS[network][0])(**arguments)


def torch_network(network="timm ConvMixer"):
    torch.manual_seed(0)
    network = torch_networks.counterpart(NETWORKS[network][0], arguments_of(network), NETWORKS[network][2])
    return torch_networks.randomize(network)


def logits(model, images):
    if model.input_shape[-1] == 3:
        images = np.moveaxis(images, 1, -1)
    return keras.ops.convert_to_numpy(model(images, training=False))


def assert_unchanged(model, before):
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 3, *IMAGE)).astype("float32")


@pytest.fixture
def state():
    return torch_network().state_dict()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("network", NETWORKS)
def test_gives_the_same_logits_as_the_pytorch_network(network, data_format, images):
    reference, model = torch_network(network), keras_model(network, data_format=data_format)
    load_torch_weights(model, reference.state_dict())
    with torch.no_grad():
        expected = reference(torch.from_numpy(images)).numpy()
    found = logits(model, images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("network", NETWORKS)
def test_comes_back_to_the_bit_and_into_the_pytorch_network(network):
    reference, model = torch_network(network), keras_model(network)
    load_torch_weights(model, reference.state_dict())
    state = to_torch_state_dict(model, NETWORKS[network][2])
    assert state.keys() == reference.state_dict().keys()
    for name, tensor in reference.state_dict().items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    assert reference.load_state_dict(state, strict=True)


@pytest.mark.parametrize("way", ["into the model", "out of it"])
def test_weights_are_copied(way, state):
    model = keras_model()
    if way == "into the model":
        load_torch_weights(model, state)
    else:
        state = to_torch_state_dict(model, "timm")
    before = [weight.copy() for weight in model.get_weights()]
    for tensor in state.values():
        tensor.fill_(7)
    assert_unchanged(model, before)


WRAPPED = {
    "DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "torch.compile": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
    "state_dict": lambda state: {"epoch": 3, "arch": "convmixer", "state_dict": state},
    "net": lambda state: {"acc": 94.2, "net": {f"module.{name}": tensor for name, tensor in state.items()}},
    "arrays": lambda state: {name: tensor.numpy() for name, tensor in state.items()},
    "parameters": lambda state: {name: torch.nn.Parameter(t, t.is_floating_point()) for name, t in state.items()},
    "no num_batches_tracked": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
    "another order": lambda state: dict(reversed(state.items())),
}


def same_weights(model, state):
    found = to_torch_state_dict(model, "timm")
    return all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_wrappings_are_seen_through(wrapping, state):
    model = keras_model()
    assert not same_weights(model, state)
    load_torch_weights(model, WRAPPED[wrapping](state))
    assert same_weights(model, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("as_file", [False, True])
def test_half_precision_is_widened(dtype, as_file, state, tmp_path):
    model, half = keras_model(), {name: tensor.to(dtype) for name, tensor in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    load_torch_weights(model, tmp_path / "half.safetensors" if as_file else half)
    assert same_weights(model, {name: tensor.float() for name, tensor in half.items() if "num" not in name})


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.pth.tar", "pytorch_model.bin"])
def test_files(name, state, tmp_path):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.01)}, path)
    for source in (path, str(path)):
        model = keras_model()
        load_torch_weights(model, source)
        assert same_weights(model, state)
    assert same_weights(keras_model(weights=path), state)


def test_a_model_without_a_head_leaves_the_head_out(state, images):
    model = keras_model(include_top=False)
    load_torch_weights(model, state)
    with torch.no_grad():
        expected = torch_network().features(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits(model, images), np.moveaxis(expected, 1, -1), rtol=1e-4, atol=1e-5)


def test_a_new_head_stays_as_it_was_and_the_rest_is_loaded(state):
    for classes in (5, 7):
        model = keras_model(num_classes=classes)
        before = model.get_layer("head").get_weights()
        load_torch_weights(model, state, new_head=True)
        assert_unchanged(model.get_layer("head"), before)
        assert same_weights(model, {name: tensor for name, tensor in state.items() if "head" not in name})


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


REFUSED = {
    "missing": (
        lambda s: without(s, "blocks.1.1.bias", "stem.2.running_var"),
        r"\(timm layout\) lacks stem.2.running_var \(12,\), blocks.1.1.bias \(12,\): build the model with",
    ),
    "extra": (
        lambda s: {**s, "blocks.2.1.bias": torch.zeros(12), "fc": torch.zeros(2, 3)},
        r"has blocks.2.1.bias \(12,\), fc \(2, 3\) left over",
    ),
    "misshaped": (
        lambda s: {**s, "blocks.0.0.fn.0.weight": torch.zeros(12, 1, 5, 5)},
        r"has blocks.0.0.fn.0.weight \(12, 1, 5, 5\) where the model has \(12, 1, 4, 4\): build",
    ),
    "another head": (
        lambda s: {**s, "head.weight": torch.zeros(9, 12), "head.bias": torch.zeros(9)},
        r"head.weight \(9, 12\) where the model has \(5, 12\), head.bias \(9,\) where .*: use new_head=True",
    ),
    "missing and misshaped": (
        lambda s: {**without(s, "stem.0.bias"), "head.bias": torch.zeros(9)},
        r"lacks stem.0.bias \(12,\), has head.bias \(9,\) where the model has \(5,\): build",
    ),
    "many": (
        lambda s: {"stem.0.weight": s["stem.0.weight"]},
        r"lacks (\S+ \([^)]*\), ){7}\S+ \(12,\) and 23 more: build",
    ),
    "many of another layout": (
        lambda s: {"patch_emb.0.weight": s["stem.0.weight"]},
        "'splitmixer' has no place for ChannelMixer, SpatialMixer2D of model",
    ),
    "another network": (lambda s: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "holds 'conv1.weight', which is the"),
    "nothing": (lambda s: {}, "holds nothing, which is the state dict of neither"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_does_not_fit_and_leaves_the_model_as_it_was(case, state):
    change, message = REFUSED[case]
    model = keras_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as refusal:
        load_torch_weights(model, change(state))
    assert "\n" not in str(refusal.value)
    assert_unchanged(model, before)


MLP_REFUSED = {
    "missing": (lambda s: without(s, "blocks.1.ls1"), r"lacks blocks.1.ls1 \(12,\): build the model with"),
    "extra": (lambda s: {**s, "blocks.2.ls1": torch.zeros(12)}, r"has blocks.2.ls1 \(12,\) left over"),
    "another grid": (
        lambda s: {**s, "blocks.0.linear_tokens.weight": torch.zeros(49, 49)},
        r"has blocks.0.linear_tokens.weight \(49, 49\) where the model has \(35, 35\): build",
    ),
    "affine of another shape": (
        lambda s: {**s, "norm.alpha": torch.zeros(12)},
        r"has norm.alpha \(12,\) where the model has \(1, 1, 12\): build",
    ),
    "another head": (
        lambda s: {**s, "head.weight": torch.zeros(9, 12), "head.bias": torch.zeros(9)},
        r"head.weight \(9, 12\) where the model has \(5, 12\), head.bias \(9,\) where .*: use new_head=True",
    ),
}


@pytest.mark.parametrize("case", MLP_REFUSED)
def test_refuses_what_does_not_fit_a_resmlp(case):
    change, message = MLP_REFUSED[case]
    model, state = keras_model("timm ResMLP"), torch_network("timm ResMLP").state_dict()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_torch_weights(model, change(state))
    assert_unchanged(model, before)


@pytest.mark.parametrize("network", ["timm MLP-Mixer", "timm gMixer", "timm ResMLP", "ResMLP", "timm gMLP"])
def test_wrapped_heads_and_features_of_the_mlp_mixers(network, images):
    reference = torch_network(network)
    state = {"state_dict": {f"module.{name}": tensor for name, tensor in reference.state_dict().items()}}
    features = keras_model(network, include_top=False)
    load_torch_weights(features, state)
    with torch.no_grad():
        expected = reference.features(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits(features, images), np.moveaxis(expected, 1, -1), rtol=1e-4, atol=1e-5)
    other = keras_model(network, num_classes=7)
    before = other.get_layer("head").get_weights()
    load_torch_weights(other, state, new_head=True)
    assert_unchanged(other.get_layer("head"), before)
    assert_unchanged(keras.Model(other.input, other.get_layer("norm").output), features.get_weights())


def test_refuses_another_layout_than_the_models():
    with pytest.raises(ValueError, match="'splitmixer' has no place for ChannelMixer, SpatialMixer2D of model"):
        load_torch_weights(keras_model(), torch_network("I").state_dict())
    with pytest.raises(ValueError, match="'resmlp' has no place for ChannelMixer, PatchEmbed, SpatialMixer2D of model"):
        load_torch_weights(keras_model(), torch_network("ResMLP").state_dict())
    with pytest.raises(ValueError, match="'resmlp' has no place for TokenMLP of model 'mlp_mixer_12_2'"):
        load_torch_weights(keras_model("timm MLP-Mixer"), torch_network("ResMLP").state_dict())
    with pytest.raises(ValueError, match=r"\(timm layout\) lacks blocks.0.norm1.weight .*, has blocks.0.norm.weight"):
        load_torch_weights(keras_model("timm MLP-Mixer"), torch_network("timm gMLP").state_dict())
    with pytest.raises(ValueError, match="'convmixer' has no place for ChannelStrideMixer of model 'stridemixer_12_2'"):
        to_torch_state_dict(keras_model("3D"), "convmixer")
    with pytest.raises(
        ValueError, match="layout must be one of 'timm', 'convmixer', 'splitmixer', 'resmlp', got .*'jax'"
    ):
        to_torch_state_dict(keras_model(), "jax")


def test_every_weight_has_a_place_or_none_has():
    """A scale where timm's network has none would be lost without a word."""
    scaled = keras_mixers.IsotropicMixer(
        12, 1, input_shape=(8, 8, 3), normalization="layer", residual="both", linear_embedding=True,
        spatial_mixer=lambda block, **shared: layers.TokenMLP(6, layer_scale=0.1, **shared),
        channel_mixer=lambda block, **shared: layers.ChannelMLP(6, **shared),
    )  # fmt: skip
    with pytest.raises(ValueError, match="'timm' has no place for TokenMLP of model 'isotropic_mixer'"):
        to_torch_state_dict(scaled, "timm")


def test_resmlp_goes_from_one_layout_into_the_other():
    theirs, model = torch_network("ResMLP").state_dict(), keras_model("ResMLP")
    load_torch_weights(model, theirs)
    timms = to_torch_state_dict(model, "timm")
    assert timms["blocks.2.norm1.alpha"].shape == (1, 1, 12)
    assert torch.equal(timms["blocks.2.ls2"], theirs["blocks.2.gamma_2"])
    again = keras_model("ResMLP")
    load_torch_weights(again, timms)
    for name, tensor in to_torch_state_dict(again, "resmlp").items():
        assert torch.equal(tensor, theirs[name]), name


def test_refuses_networks_that_are_not_published():
    general = keras_mixers.IsotropicMixer(
        12, 1,
        spatial_mixer=lambda block, **shared: layers.SpatialMixer1D(3, **shared),
        channel_mixer=lambda block, **shared: layers.ChannelSplitMixer(3, ratio=1 / 2, **shared),
    )  # fmt: skip
    with pytest.raises(ValueError, match="'splitmixer' has no place for ChannelSplitMixer of model 'isotropic_mixer'"):
        to_torch_state_dict(general, "splitmixer")
    foreign = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="foreign")
    with pytest.raises(ValueError, match="model must be a network of this library, .* got 'foreign'"):
        to_torch_state_dict(foreign, "timm")


class RunsCode:
    def __reduce__(self):
        return (print, ("this must not be printed",))


def test_refuses_files_that_it_cannot_trust_or_read(state, tmp_path, capsys):
    model = keras_model()
    before = model.get_weights()
    torch.save({"state_dict": state, "extra": RunsCode()}, tmp_path / "code.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "code.pt").read_bytes()[:-2000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-2000])
    refusals = {
        "code.pt": "is damaged or holds more than tensors, and is not unpickled",
        "cut.pt": "is damaged or holds more",
        "empty.pth": "is damaged or holds more",
        "list.pt": "holds a list, not a state dict",
        "cut.safetensors": "is damaged or no safetensors file",
    }
    for name, message in refusals.items():
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / name))}' {message}") as refusal:
            load_torch_weights(model, tmp_path / name)
        assert "\n" not in str(refusal.value), name
    assert "must not be printed" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no file of weights at .*absent.pt"):
        load_torch_weights(model, tmp_path / "absent.pt")
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="source must be a .safetensors, .pt, .pth, .pth.tar, .bin file, got .*w.npz"):
        load_torch_weights(model, tmp_path / "w.npz")
    assert_unchanged(model, before)
