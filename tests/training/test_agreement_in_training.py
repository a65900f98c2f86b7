"""The recorded runs on CIFAR-10: our accuracies are those of hand-written PyTorch, as far as seeds can tell."""

import agreement_in_training as agreement
import numpy as np
import pytest

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_mean_accuracy_is_within_a_standard_deviation_of_pytorchs(backend):
    runs = agreement.read()
    expected, found = (np.array(runs[name]) for name in ("hand-written PyTorch", backend))
    assert len(expected) == len(found) == len(agreement.SEEDS)
    deviation = np.sqrt((expected.var(axis=0, ddof=1) + found.var(axis=0, ddof=1)) / 2)
    difference = np.abs(expected.mean(axis=0) - found.mean(axis=0))
    assert difference[0] <= deviation[0], (expected, found)
