"""timm's own networks with their published weights: `python -m pytest -m checkpoints`, online and with timm."""

import keras
import numpy as np
import pytest
import torch

import keras_mixers

pytestmark = pytest.mark.checkpoints

PUBLISHED = {
    "convmixer_1536_20": "convmixer_1536_20.in1k",
    "convmixer_768_32": "convmixer_768_32.in1k",
    "convmixer_1024_20_p14_k9": "convmixer_1024_20_ks9_p14.in1k",
}


def timm_network(name):
    timm = pytest.importorskip("timm", reason="timm's networks need timm: pip install timm torchvision")
    return timm.create_model(PUBLISHED[name], pretrained=True).eval()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_and_features_are_timms(name, data_format, rng):
    reference = timm_network(name)
    model = keras_mixers.create_model(name, weights="imagenet", data_format=data_format)
    both = keras.Model(model.input, [model.get_layer("pool").input, model.output])
    for side in (224, 160):
        images = rng.standard_normal((2, 3, side, side)).astype("float32")
        with torch.no_grad():
            expected = [
                x.numpy()
                for x in (reference.forward_features(torch.from_numpy(images)), reference(torch.from_numpy(images)))
            ]
        last = data_format == "channels_last"
        found = [
            keras.ops.convert_to_numpy(x) for x in both(np.moveaxis(images, 1, -1) if last else images, training=False)
        ]
        found[0] = np.moveaxis(found[0], -1, 1)  # channels last inside, whatever the images' format
        for ours, theirs in zip(found, expected, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_preprocessing_is_timms(name, rng):
    reference = timm_network(name)
    import timm.data
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(reference), is_training=False)
    image = rng.integers(0, 256, (300, 411, 3)).astype("uint8")
    found = keras_mixers.preprocess_input([image], name, data_format="channels_first")[0]
    # PIL rounds to whole pixels between its two passes, ours only at the end: a level of 255, over a std of 0.22.
    np.testing.assert_allclose(found, transform(Image.fromarray(image)).numpy(), atol=1.01 / 255 / 0.22)
