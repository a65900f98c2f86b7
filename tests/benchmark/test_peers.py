"""Peers are the same networks: our numbers of parameters, and our logits with our weights."""

import importlib.util
import itertools

import keras
import numpy as np
import pytest

from keras_mixers import ConvMixer, MLPMixer, ResMLP, SplitMixerI, gMLP, load_torch_weights
from keras_mixers.benchmark import peers
from keras_mixers.benchmark.mlp_peers import MLPSizes
from keras_mixers.benchmark.peers import Sizes, check_kimm, check_peer, keras_network, sizes_of, torch_network
from keras_mixers.models import PRESETS

SHAPE = (8, 8, 3)
SMALL = {
    "ConvMixer": Sizes(8, 2, 3, 2, 5),
    "ConvMixer with ReLU and an even kernel": Sizes(8, 2, 4, 2, 5, activation="relu"),
    "SplitMixerI": Sizes(10, 3, 3, 2, 5, ratio=2 / 3),
    "MLPMixer": MLPSizes("MLP-Mixer", 16, 2, 2, 5, token_hidden=8, channel_hidden=64),  # as many channels as patches
    "ResMLP": MLPSizes("ResMLP", 10, 3, 2, 5, token_hidden=0, channel_hidden=40),
    "gMLP": MLPSizes("gMLP", 10, 3, 2, 5, token_hidden=0, channel_hidden=60),
}


@pytest.fixture(params=SMALL)
def sizes(request):
    return SMALL[request.param]


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, *SHAPE), dtype="float32")


def our_network(sizes):
    if isinstance(sizes, MLPSizes):
        build = {"MLP-Mixer": MLPMixer, "ResMLP": ResMLP, "gMLP": gMLP}[sizes.family]
        patches = {"input_shape": SHAPE, "data_format": "channels_last"}
        return build(sizes.dim, sizes.blocks, sizes.patch_size, sizes.num_classes, **patches)
    options = {"input_shape": SHAPE, "activation": sizes.activation, "data_format": "channels_last"}
    arguments = (sizes.dim, sizes.blocks, sizes.kernel_size, sizes.patch_size, sizes.num_classes)
    if sizes.ratio is None:
        return ConvMixer(*arguments, **options)
    return SplitMixerI(*arguments, sizes.ratio, **options)


def test_keras_network_has_our_logits_with_our_weights(sizes, images, randomize):
    ours, plain = randomize(our_network(sizes)), keras_network(sizes, SHAPE[0])
    assert plain.count_params() == ours.count_params()
    in_order = (sorted(layer.weights, key=lambda weight: weight.name == "scale") for layer in ours.layers)
    for weight, value in zip(plain.weights, itertools.chain(*in_order), strict=True):
        assert weight.name == value.name
        weight.assign(keras.ops.convert_to_numpy(value).reshape(weight.shape))
    np.testing.assert_allclose(plain.predict_on_batch(images), ours.predict_on_batch(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("memory_format", ["contiguous_format", "channels_last"])
def test_torch_network_has_our_logits_with_our_weights(sizes, images, memory_format):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch_network(sizes, SHAPE[0])
    for parameter in network.parameters():
        if parameter.ndim < 4 and not isinstance(network, torch.nn.Sequential):  # gates and scales start near 0
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 1.5)
    network = network.eval().to(memory_format=getattr(torch, memory_format))
    ours = our_network(sizes)
    trainable = sum(int(np.prod(weight.shape)) for weight in ours.trainable_weights)
    assert sum(parameter.numel() for parameter in network.parameters()) == trainable
    load_torch_weights(ours, network.state_dict())
    with torch.inference_mode():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(ours.predict_on_batch(images), expected, atol=1e-4, rtol=1e-4)


def test_dtype_policy_is_the_networks_alone(sizes):
    before = keras.config.dtype_policy()
    network = keras_network(sizes, SHAPE[0], "mixed_bfloat16")
    assert {layer.compute_dtype for layer in network.layers if layer.weights} == {"bfloat16"}
    assert keras.config.dtype_policy() is before


def test_sizes_are_the_tables():
    assert sizes_of("convmixer_256_8_p2_k5") == Sizes(256, 8, 5, 2, 10)
    assert sizes_of("splitmixer_i_1536_20") == Sizes(1536, 20, 9, 7, 1000, ratio=2 / 3)
    assert sizes_of("mixer_b16") == MLPSizes("MLP-Mixer", 768, 12, 16, 1000, token_hidden=384, channel_hidden=3072)
    assert sizes_of("gmlp_s16") == MLPSizes("gMLP", 256, 30, 16, 1000, token_hidden=0, channel_hidden=1536)
    expected = r"Peers exist for ConvMixer, SplitMixerI, MLPMixer, ResMLP and gMLP, got 'stridemixer_256_8'"
    with pytest.raises(ValueError, match=expected):
        sizes_of("stridemixer_256_8")


def test_kimm_has_three_models_of_the_table():
    found = {name: peers.KIMM_MODELS.get(sizes_of(name)) for name in PRESETS if name.startswith("convmixer")}
    assert {name: kind for name, kind in found.items() if kind} == {
        "convmixer_1536_20": "ConvMixer1536D20",
        "convmixer_768_32": "ConvMixer736D32",
        "convmixer_1024_20_p14_k9": "ConvMixer1024D20",
    }


def test_kimm_refuses_others(sizes):
    with pytest.raises(ValueError, match=r"kimm has the ConvMixers 1536/20, 768/32 and 1024/20 for ImageNet"):
        check_kimm(sizes, 224)
    with pytest.raises(ValueError, match=r"kimm takes images of 32 pixels or more, got image_size=8"):
        check_kimm(sizes_of("convmixer_768_32"), 8)


@pytest.mark.skipif(importlib.util.find_spec("kimm") is None, reason="kimm is not installed")
def test_kimm_has_our_number_of_parameters():
    sizes = sizes_of("convmixer_768_32")
    assert peers.kimm_network(sizes, 32).count_params() == keras_network(sizes, 32).count_params()


def test_refuses_peers_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"against 'kimm' needs kimm, which is not installed; pip install kimm\."):
        check_peer("kimm")
    with pytest.raises(ValueError, match=r"against 'torch-compiled' needs torch, which is not installed"):
        check_peer("torch-compiled")
    with pytest.raises(ValueError, match=r"against must be one of 'keras', 'kimm'"):
        check_peer("timm")


def test_refuses_to_compile_without_a_compiler(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(peers.backends, "device", lambda: "cpu")
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        check_peer("torch-compiled")
