"""timm's own MLP-Mixers with random weights, where timm imports: its names, shapes, counts and logits are ours."""

import math

import keras
import numpy as np
import pytest
import torch
import torch_networks

import keras_mixers
from keras_mixers.profiling import without_values

pytestmark = pytest.mark.backend_independent

NAMES = {
    "mixer_b16": "mixer_b16_224", "mixer_l16": "mixer_l16_224", "gmixer_24": "gmixer_24_224",
    "resmlp_12": "resmlp_12_224", "resmlp_24": "resmlp_24_224", "resmlp_36": "resmlp_36_224",
    "resmlp_big_24": "resmlp_big_24_224", "gmlp_s16": "gmlp_s16_224",
}  # fmt: skip
ONE_OF_EACH = ("mixer_b16", "gmixer_24", "resmlp_12", "gmlp_s16")


@pytest.fixture(scope="module")
def timm():
    try:
        import timm
    except Exception as error:  # torchvision, which it imports, fails in its own ways beside another build of PyTorch
        pytest.skip(f"timm does not import here ({type(error).__name__}: {error})")
    return timm


@pytest.mark.parametrize("name", NAMES)
def test_has_timms_parameters_to_the_last(name, timm):
    with torch.device("meta"):
        reference = timm.create_model(NAMES[name])
    model = without_values(keras_mixers.create_model, name)
    assert sum(p.numel() for p in reference.parameters()) == sum(math.prod(w.shape) for w in model.trainable_weights)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_features_and_logits_are_timms(name, data_format, timm, rng):
    torch.manual_seed(0)
    reference = timm.create_model(NAMES[name]).eval()
    with torch.no_grad():
        for parameter in reference.parameters():  # scales and gates start so small that they would hide what they do
            if parameter.dim() == 1 or parameter.std() < 1e-3:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model = keras_mixers.create_model(name, data_format=data_format)
    keras_mixers.load_torch_weights(model, reference.state_dict())
    images = rng.standard_normal((1, 3, 224, 224)).astype("float32")
    with torch.no_grad():
        features = reference.forward_features(torch.from_numpy(images))
        expected = [features.numpy(), reference(torch.from_numpy(images)).numpy()]
    both = keras.Model(model.input, [model.norm.output, model.output])
    last = data_format == "channels_last"
    found = both(np.moveaxis(images, 1, -1) if last else images, training=False)
    for ours, theirs in zip(map(keras.ops.convert_to_numpy, found), expected, strict=True):
        assert np.abs(ours.reshape(theirs.shape) - theirs).max() <= 1e-5 * np.abs(theirs).max()
    state = keras_mixers.to_torch_state_dict(model, "timm")
    assert reference.load_state_dict(state, strict=True)
    assert all(torch.equal(state[key], tensor) for key, tensor in reference.state_dict().items())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_our_pytorch_networks_are_timms(name, timm):
    """What other tests compare with has timm's tensors, and gives its logits."""
    preset = keras_mixers.get_preset(name)
    ours = torch_networks.randomize(torch_networks.counterpart(preset.builder.__name__, preset.arguments, "timm"))
    theirs = timm.create_model(NAMES[name]).eval()
    assert theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_weights_and_pixels_are_those_of_timms_table(timm):
    from timm.models import get_pretrained_cfg

    for name in NAMES:
        preset = keras_mixers.get_preset(name)
        for weights, source in preset.weights.items():
            published = get_pretrained_cfg(source.removeprefix("hf://timm/"))
            assert f"hf://{published.hf_hub_id}" == source
            pixels = preset.pixels_of(weights)
            assert (published.mean, published.std, published.interpolation, published.crop_pct) == (
                pixels.mean, pixels.std, pixels.interpolation, pixels.crop_fraction,
            )  # fmt: skip
            assert published.input_size == (3, pixels.size, pixels.size)
            assert published.num_classes == 1000
