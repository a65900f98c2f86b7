"""`list` names every model of the table, or those like a pattern."""

import pytest

import keras_mixers
from keras_mixers.models import PRESETS

pytestmark = pytest.mark.backend_independent


def test_lists_every_model(run):
    heading, *rows = run("list").splitlines()
    assert heading.split("  ")[0] == "model"
    assert [row.split()[0] for row in rows] == keras_mixers.list_models()
    for row, preset in zip(rows, PRESETS.values(), strict=True):
        assert int(row.split()[3]) == preset.pixels.size
        for published in preset.published:
            assert f"{published.top1:.2f}" in row.partition(published.dataset)[2]


def test_lists_models_like_a_pattern(run):
    assert run("list", "*_256_8_p2_k5") == (
        "model                  parameters         MACs  image  published top-1 in %\n"
        "convmixer_256_8_p2_k5     594,186  148,113,920     32  cifar10 95.21 / 95.26 / 94.17, cifar100 73.92\n"
    )


def test_refuses_a_pattern_that_fits_none(refused):
    assert refused("list", "zzz*") == "There is no model like 'zzz*'; python -m keras_mixers list names them all."
