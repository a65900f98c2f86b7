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


def test_on_pytorch_the_mean_is_within_a_standard_deviation_of_hand_written_pytorchs():
    assert abs(difference_in_deviations("torch")) <= 1


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_no_backend_ends_more_than_a_standard_deviation_below(backend):
    """They ended 1.1 and 2.0 above: with three seeds, a fifth of such differences exceed one."""
    assert difference_in_deviations(backend) >= -1
