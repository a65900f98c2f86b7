"""The recorded runs on CIFAR-10 against hand-written PyTorch, and what README says of them."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.backend_independent
SCRIPTS = Path(__file__).parents[2] / "docs" / "scripts"
agreement = SimpleNamespace(**runpy.run_path(str(SCRIPTS / "agreement_in_training.py")))

SMOKE, FAST = agreement.RECIPES
NAMES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow", "hand-written PyTorch": "hand-written PyTorch"}


def accuracies(name, recipe=SMOKE):
    """Give mean and variance of an implementation's accuracies, over its seeds."""
    rows = agreement.read()
    found = np.array([float(rows[recipe, name, seed]["top1"]) for seed in agreement.SEEDS])
    return found.mean(), found.var(ddof=1)


@pytest.mark.parametrize(
    ("recipe", "backend"), [(SMOKE, "torch"), (SMOKE, "jax"), (SMOKE, "tensorflow"), (FAST, "tensorflow")]
)
def test_mean_accuracy_is_within_a_standard_deviation_of_hand_written_pytorchs(recipe, backend):
    (mean, variance), (expected, other) = accuracies(backend, recipe), accuracies(agreement.BY_HAND, recipe)
    assert abs(mean - expected) <= np.sqrt((variance + other) / 2)


def test_training_page_tells_what_hand_written_pytorch_reaches_with_the_short_recipe():
    page = " ".join((Path(__file__).parents[2] / "docs" / "training.md").read_text().split())
    ours, by_hand = (accuracies(name, FAST) for name in ("tensorflow", agreement.BY_HAND))
    assert f"{ours[0]:.1f} % on TensorFlow, {by_hand[0]:.1f} % by hand-written PyTorch" in page
    assert f"deviations of {np.sqrt(ours[1]):.1f} and {np.sqrt(by_hand[1]):.1f}" in page


def test_readme_tells_means_and_deviations():
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    for name, shown in NAMES.items():
        assert f"{accuracies(name)[0]:.1f} % {'by' if name.startswith('hand') else 'on'} {shown}" in readme
    deviations = [np.sqrt(accuracies(name)[1]) for name in NAMES]
    assert (
        f"means of {len(agreement.SEEDS)} seeds with deviations of {min(deviations):.1f} to {max(deviations):.1f}"
        in (readme)
    )
