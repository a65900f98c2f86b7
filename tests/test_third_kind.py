"""A mixer of a user's own, as docs/new_mixer.md writes it, does all that the library's do."""

import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
import torch_networks
from drawn_images import scenes
from keras import ops
from torch import nn
from training import small_run

import keras_mixers
from keras_mixers.export.formats import FORMATS
from keras_mixers.layers import SpatialMixer
from keras_mixers.models import PRESETS, Published
from keras_mixers.visualize import accuracy_against_cost, channel_reach, reachable_channels
from keras_mixers.visualize.page import write_page

PAGE = Path(__file__).parents[1] / "docs" / "new_mixer.md"
SMALL = {"dim": 12, "blocks": 2, "kernel_size": 3, "num_classes": 5, "rank": 4, "data_format": "channels_last"}
SUFFIXES = {"saved_model": "", "openvino": ".xml", "onnx": ".onnx", "litert": ".tflite", "torch": ".pt2",
            "keras": ".keras"}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def third_kind():
    """What the page defines."""
    names = {"__name__": "new_mixer"}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)), names)
    yield names
    del PRESETS["low_rank_64_4"]


@pytest.fixture
def model(randomize):
    return randomize(keras_mixers.create_model("low_rank_64_4", **SMALL))


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 8, 10, 3)).astype("float32")


def outputs(model, images):
    return ops.convert_to_numpy(model(images, training=False))


@pytest.mark.backend_independent
def test_counts(model):
    found = {layer.name: layer for layer in keras_mixers.profile(model, (8, 10, 3)).layers}["block_0_channel"]
    assert found.macs == 4 * 5 * 2 * 12 * 4
    assert found.published_flops == found.macs + 4 * 4 * 5 * 12
    assert found.params == 2 * 12 * 4 + 4 + 12 + 2 * 12


@pytest.mark.parametrize("options", [{}, {"residual": "both"}, {"normalization": "layer"}, {"activation": "relu"}])
def test_folds(options, randomize, images):
    model = randomize(keras_mixers.create_model("low_rank_64_4", **SMALL, **options))
    folded = keras_mixers.fold(model)
    assert not any(hasattr(layer, "write_out") for layer in folded.layers)
    np.testing.assert_allclose(outputs(folded, images), outputs(model, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_exports_to_every_format(format, model, tmp_path):
    model.pixels = replace(model.pixels, size=16)
    report = keras_mixers.export_model(model, tmp_path / f"network{SUFFIXES[format]}", format, images=scenes(4, 20))
    assert report.max_difference <= 1e-5


@pytest.mark.backend_independent
def test_maps_its_channels_and_has_a_family(model, tmp_path, monkeypatch):
    assert reachable_channels(model).all()
    assert len(channel_reach(model).axes) == 2
    assert write_page(model, np.zeros((32, 32, 3), "uint8"), tmp_path / "page").exists()
    preset = replace(keras_mixers.get_preset("low_rank_64_4"), published=(Published("cifar10", 90.0, "nowhere"),))
    monkeypatch.setitem(PRESETS, "low_rank_64_4", preset)
    labels = [text.get_text() for text in accuracy_against_cost("cifar10").axes[0].get_legend().get_texts()]
    assert "low rank" in labels


def test_loads_the_weights_of_a_pytorch_network(model, images):
    def block():
        mixer = nn.Sequential(nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1))
        return nn.Sequential(
            torch_networks.spatial_mixing_1d(12, 3, nn.GELU), *torch_networks.post_norm(mixer, 12, nn.GELU)
        )

    stem = torch_networks.patch_embedding(12, 2, nn.GELU)
    network = nn.Sequential(*stem, block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    torch_networks.randomize(network)
    keras_mixers.load_torch_weights(model, network.state_dict())
    with torch.no_grad():
        expected = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy())).numpy()
    np.testing.assert_allclose(outputs(model, images), expected, rtol=1e-4, atol=1e-5)
    again = keras_mixers.to_torch_state_dict(model, "convmixer")
    assert all(torch.equal(again[name], tensor) for name, tensor in network.state_dict().items())


def test_trains_from_its_name_and_comes_back(tmp_path, images):
    recipe = replace(
        small_run.RECIPE, model="low_rank_64_4", epochs=1, model_arguments={"dim": 8, "blocks": 2, "rank": 2}
    )
    first = small_run.train(tmp_path / "first", recipe)
    model = keras.models.load_model(first.directory / "model.keras")
    assert [[layer.name for layer in block] for block in model.blocks] == [
        ["block_0_spatial", "block_0_channel"],
        ["block_1_spatial", "block_1_channel"],
    ]
    assert (model.pixels, model.class_names) == (recipe.pixels, small_run.CLASSES)
    small_run.train(tmp_path / "next", recipe, weights=first.directory / "model.keras", freeze=1)


@keras.saving.register_keras_serializable(package="test_third_kind")
class DilatedMixer(SpatialMixer):
    """Alone in its block, of a convolution of Keras, and with no more said than it must."""

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        self.convolution = keras.layers.DepthwiseConv2D(
            self.kernel_size, padding="same", dilation_rate=2, use_bias=False, data_format=self.data_format
        )
        self.convolution.build(input_shape)
        self.norm = self.make_norm(channels)

    def mix(self, x, training):
        return self.convolution(x), self.norm


class WrittenOut(DilatedMixer):
    def write_mix(self, writer, maps):
        return writer.convolve(self.convolution, maps, f"{self.name}_depthwise")


def dilated(layer, **options):
    return keras_mixers.IsotropicMixer(
        6, 2, data_format="channels_last", spatial_mixer=lambda block, **shared: layer(3, **shared), channel_mixer=None,
        **options,
    )  # fmt: skip


def test_a_spatial_mixer_that_says_little(randomize, images, tmp_path):
    model = randomize(dilated(DilatedMixer))
    assert keras_mixers.profile(model, (8, 10, 3)).layers[2].macs == 4 * 5 * 9 * 6
    with pytest.raises(ValueError, match=r"'block_0_spatial' of DilatedMixer .* write_out\(writer, maps\)"):
        keras_mixers.fold(model)
    report = keras_mixers.export_model(model, tmp_path / "network.keras", images=images, image_size=(8, 10))
    assert report.max_difference <= 1e-5
    with pytest.raises(ValueError, match="model must have channel mixers"):
        reachable_channels(model)
    with pytest.raises(ValueError, match="'timm' has no place for DilatedMixer of model"):
        keras_mixers.to_torch_state_dict(model, "timm")
    written_out = randomize(dilated(WrittenOut))
    folded = keras_mixers.fold(written_out)
    np.testing.assert_allclose(outputs(folded, images), outputs(written_out, images), rtol=1e-4, atol=1e-5)
