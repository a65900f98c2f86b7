"""The recorded runs on CIFAR-10 against hand-written PyTorch, as far as three seeds can tell."""

import agreement_in_training as agreement
import numpy as np
import pytest

pytestmark = pytest.mark.any_backend


def accuracies(name):
    """Give mean and variance of an implementation's accuracies, over its seeds."""
    found = np.array([accuracy for accuracy, _ in agreement.read()[name]])
    assert len(found) == len(agreement.SEEDS)
    return found.mean(), found.var(ddof=1)


def difference_in_deviations(backend):
    (mean, variance), (expected, other) = accuracies(backend), accuracies("hand-written PyTorch")
    return (mean - expected) / np.sqrt((variance + other) / 2)


OPEN = pytest.mark.xfail(strict=True, reason="ended 1.1 and 2.0 deviations above; three seeds may be too few")


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=OPEN), pytest.param("tensorflow", marks=OPEN)])
def test_mean_accuracy_is_within_a_standard_deviation_of_hand_written_pytorchs(backend):
    assert abs(difference_in_deviations(backend)) <= 1
