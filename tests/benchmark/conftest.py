"""What the tests of the benchmark share: models small enough to be timed at once."""

import pytest

from keras_mixers import ConvMixer, SplitMixerI, SplitMixerII
from keras_mixers.models import PRESETS, Preset
from keras_mixers.models.presets import CIFAR10


@pytest.fixture
def tiny_models(monkeypatch):
    """Put models of 8 channels and 2 blocks into the table."""
    sizes = {"dim": 8, "kernel_size": 3, "patch_size": 2, "num_classes": 5}
    monkeypatch.setitem(PRESETS, "tiny_convmixer", Preset(ConvMixer, {**sizes, "depth": 2}, CIFAR10))
    for name, builder, split in (("i", SplitMixerI, {"ratio": 2 / 3}), ("ii", SplitMixerII, {"segments": 2})):
        monkeypatch.setitem(PRESETS, f"tiny_{name}", Preset(builder, {**sizes, "blocks": 2, **split}, CIFAR10))
