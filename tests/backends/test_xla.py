"""At XLA's usual optimisation, which the other tests switch off, each kind of layer equals its reference too."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

LAYERS = Path(__file__).parents[1] / "layers"
# One test of each kind of layer, and one that compiles all of them and compares with what they give uncompiled.
TESTS = (
    "test_patch_embed.py::test_equals_reference[3-2-{'padding': 'same'}-channels_last]",
    "test_spatial_mixers.py::test_2d_equals_reference[5-{}-channels_last]",
    "test_spatial_mixers.py::test_1d_equals_reference[4-{}-channels_last]",
    "test_channel_mixers.py::test_full_mixer_equals_reference[{}-channels_last]",
    *(
        f"test_channel_mixers.py::test_split_mixers_equal_the_reference[ChannelSplitMixer-{rule}-{rule}-channels_last]"
        for rule in ({"segments": 3, "ratio": 0.5}, {"segments": 3, "shuffle": True})
    ),
    "test_channel_mixers.py::test_stride_mixer_equals_reference[{'kernel_size': 6, 'stride': 2}-channels_last]",
    "test_mixing_layer.py::test_compiled_prediction_and_training_step",
)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA compiles for JAX")
def test_each_kind_equals_its_reference_at_xlas_usual_optimisation():
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *(f"{LAYERS}/{test}" for test in TESTS)]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(TESTS)} passed" in done.stdout
