"""The published networks, whole: features and logits are PyTorch's, and the page of the differences is complete."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

import keras_mixers

SCRIPTS = Path(__file__).parents[2] / "docs" / "scripts"
agreement = SimpleNamespace(**runpy.run_path(str(SCRIPTS / "agreement_with_pytorch.py")))
# Those of ImageNet are made of the same layers, and take minutes: in CI on one backend, on the page on all.
NAMES = [
    name if re.search("_256_|_8_p4", name) else pytest.param(name, marks=pytest.mark.backend_independent)
    for name in agreement.NETWORKS
]


@pytest.mark.parametrize("name", NAMES)
def test_features_and_logits_are_pytorchs(name):
    """The page has the ImageNet networks at 224 pixels; they take minutes."""
    sizes = agreement.SIZES if "_256_" in name else ((112, 112), (80, 96))
    for data_format, found in agreement.differences(name, sizes).items():
        assert max(found) <= agreement.TOLERANCE, (data_format, found)


def test_every_builder_is_compared():
    builders = {keras_mixers.get_preset(name).builder for name in agreement.NETWORKS}
    every = ("ConvMixer", "SplitMixerI", "SplitMixerII", "SplitMixerIII", "SplitMixerIV", "SplitMixerV", "StrideMixer",
             "MLPMixer", "gMixer", "ResMLP", "gMLP")  # fmt: skip
    assert builders == {getattr(keras_mixers, name) for name in every}


def test_the_page_has_every_network_backend_and_data_format():
    lines = agreement.PAGE.read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heading, _, *rows = table
    columns = [f"{backend} {order}" for backend in agreement.BACKENDS for order in agreement.DATA_FORMATS]
    assert heading == ["network", *columns]
    assert [re.match(r"`(\w+)`", row[0]).group(1) for row in rows] == list(agreement.NETWORKS)
    for row in rows:
        found = [float(value) for cell in row[1:] for value in cell.split(" / ")]
        assert len(found) == 2 * len(columns)
        # MLP-Mixers on PyTorch are computed by the very operations of theirs: features agree to the bit.
        assert min(found) >= 0
        assert 0 < max(found) <= agreement.TOLERANCE
