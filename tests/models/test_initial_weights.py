"""Networks start as PyTorch's do: every kernel and bias uniform in ±1 / sqrt(fan_in), every norm as the identity."""

import itertools
import math

import keras
import numpy as np
import pytest
import torch
import torch_networks
from small_networks import arguments_of, for_every_builder
from torch_networks import layout_of

import keras_mixers

SEEDS = range(8)  # the smallest tensors, of 36 numbers, become samples of 288


def wide(builder):
    """Give arguments that leave no tensor with fewer numbers than that."""
    windows = {"channel_kernel_size": 36, "channel_stride": 36} if builder == "StrideMixer" else {}
    return arguments_of(builder, dim=180, kernel_size=5, num_classes=40, **windows)


def keras_model(builder, seed, **options):
    keras.utils.set_random_seed(seed)
    return getattr(keras_mixers, builder)(**wide(builder), **options)


def keras_states(builder, **options):
    models = [keras_model(builder, seed, **options) for seed in SEEDS]
    return [keras_mixers.to_torch_state_dict(model, layout_of(builder)) for model in models]


def torch_states(builder):
    states = []
    for seed in SEEDS:
        torch.manual_seed(1000 + seed)
        network = torch_networks.counterpart(builder, wide(builder), layout_of(builder))
        states.append(network.state_dict())
    return states


def norm_tensors(state):
    norms = {name.rpartition(".")[0] for name in state if name.endswith("running_mean")}
    return {name for name in state if name.rpartition(".")[0] in norms}


def pooled(states, name):
    return np.concatenate([state[name].numpy().ravel() for state in states]).astype("float64")


def kolmogorov_smirnov(a, b):
    """Give the largest distance between the distribution functions of two samples."""
    points = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (a, b)]
    return np.abs(below[0] - below[1]).max()


def differences(found, expected, bound):
    """Name what tells a sample from U(-bound, bound) and from PyTorch's, each at a level of about 1 in 100,000."""
    n, m = len(found), len(expected)
    sigma = bound / math.sqrt(3)
    spread = sigma * math.sqrt(0.2 / n)  # standard error of a uniform sample's standard deviation
    critical = math.sqrt(math.log(2e5) / 2 * (1 / n + 1 / m))
    checks = {
        "beyond the bound": np.abs(found).max() <= bound * (1 + 2**-23),  # which float32 rounds
        "short of the bound": min(found.max(), -found.min()) > 0.9 * bound,
        "mean": abs(found.mean()) <= 4.5 * sigma / math.sqrt(n),
        "standard deviation": abs(found.std() - sigma) <= 4.5 * spread,
        "standard deviation of PyTorch": abs(found.std() - expected.std()) <= 4.5 * spread * math.sqrt(1 + n / m),
        "distribution": kolmogorov_smirnov(found, expected) <= critical,
    }
    return [name for name, passed in checks.items() if not passed]


def compare(builder, **options):
    """Give the differences from PyTorch's networks for every kernel and bias, by its name in PyTorch."""
    ours, theirs = keras_states(builder, **options), torch_states(builder)
    assert ours[0].keys() == theirs[0].keys()
    found = {}
    for name in ours[0].keys() - norm_tensors(theirs[0]):
        fan_in = math.prod(theirs[0][name.rpartition(".")[0] + ".weight"].shape[1:])
        found[name] = differences(pooled(ours, name), pooled(theirs, name), fan_in**-0.5)
    return found


@for_every_builder
def test_every_kernel_and_bias_starts_as_in_pytorch(builder):
    assert {name: differ for name, differ in compare(builder).items() if differ} == {}


@for_every_builder
def test_the_same_checks_reject_every_kernel_and_bias_of_kerass_defaults(builder):
    assert [name for name, differ in compare(builder, initializer="keras").items() if not differ] == []


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_the_same_checks_reject_a_bound_that_is_5_percent_off(factor, rng):
    samples = rng.uniform(-1, 1, (2, 180 * 36 * len(SEEDS)))
    assert differences(samples[0], samples[1], 1.0) == []
    assert "standard deviation" in differences(factor * samples[0], samples[1], 1.0)


@for_every_builder
def test_every_norm_starts_as_in_pytorch_exactly(builder):
    state = keras_mixers.to_torch_state_dict(keras_model(builder, 0), layout_of(builder))
    expected = torch_states(builder)[0]
    assert norm_tensors(expected) == norm_tensors(state)
    for name in norm_tensors(expected):
        assert torch.equal(state[name], expected[name]), name


@for_every_builder
def test_no_two_tensors_start_alike_not_even_up_to_a_factor(builder):
    model = keras_model(builder, 0)
    drawn = {w.path: np.ravel(value) for w, value in zip(model.weights, model.get_weights(), strict=True)}
    drawn = {path: value for path, value in drawn.items() if np.unique(value).size > 1}
    state = keras_mixers.to_torch_state_dict(model, layout_of(builder))
    assert sum(map(len, drawn.values())) == sum(state[name].numel() for name in state.keys() - norm_tensors(state))
    beginnings = {path: value[1:5] / value[0] for path, value in drawn.items()}
    for (a, first), (b, second) in itertools.combinations(beginnings.items(), 2):
        assert np.abs(first - second).max() > 1e-4, (a, b)


def test_segments_with_own_parameters_start_apart():
    state = keras_mixers.to_torch_state_dict(keras_model("SplitMixerIV", 0), "splitmixer")
    for kind in ("weight", "bias"):
        first, second = (state[f"mixer_blocks.1.0.mixer.{segment}.{kind}"] for segment in range(2))
        assert (first != second).float().mean() > 0.99


def test_a_seed_gives_the_same_network_and_another_seed_another():
    first, again, other = (keras_model("SplitMixerV", seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
