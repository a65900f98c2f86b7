"""Ten optimiser steps from the same weights on the same batches: PyTorch's losses and weights."""

import keras
import numpy as np
import pytest
import torch
import torch_networks
import torch_training

import keras_mixers
from keras_mixers.training import AdamW, Muon, TriangularSchedule

OLD = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13)
needs_muon = pytest.mark.skipif(OLD, reason=f"Keras {keras.__version__} has no Muon for all of a model's weights")
STEPS, BATCH, SIDE, CLASSES = 10, 32, 16, 10
WEIGHT_DECAY = 0.005
SIZES = {"dim": 32, "kernel_size": 5, "patch_size": 2, "num_classes": CLASSES}
NETWORKS = {
    "ConvMixer": ({"depth": 3}, "timm"),
    "SplitMixerI": ({"blocks": 4, "ratio": 2 / 3}, "splitmixer"),
}


def rates(maximum):
    """The papers' learning rate at each of ten steps, an epoch each: it rises to the fourth, falls to the eighth."""
    return [float(np.interp(step + 1, [0, 4, 8, 10], [0, maximum, maximum / 20, 0])) for step in range(STEPS)]


def batches():
    """Batches whose classes can be told apart: noise around one image a class, first in PyTorch's format."""
    rng = np.random.default_rng(1)
    classes = rng.standard_normal((CLASSES, 3, SIDE, SIDE))
    labels = rng.integers(0, CLASSES, (STEPS, BATCH))
    return (classes[labels] + rng.standard_normal((STEPS, BATCH, 3, SIDE, SIDE))).astype("float32"), labels


IN_PYTORCH = {AdamW: torch_training.AdamW, Muon: torch_training.Muon}


def train_in_pytorch(network, images, labels, optimizer, maximum, epsilon):
    optimizer = IN_PYTORCH[optimizer](network, WEIGHT_DECAY, epsilon)
    network.train()
    losses = []
    for x, y, rate in zip(torch.from_numpy(images), torch.from_numpy(labels), rates(maximum), strict=True):
        optimizer.set_rate(rate)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_in_keras(model, images, labels, optimizer, maximum, epsilon):
    schedule = TriangularSchedule(maximum, epochs=STEPS, steps_per_epoch=1)
    np.testing.assert_allclose([float(schedule(step)) for step in range(STEPS)], rates(maximum), rtol=1e-6)
    model.compile(
        optimizer(schedule, weight_decay=WEIGHT_DECAY, epsilon=epsilon, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = []
    for x, y in zip(images, labels, strict=True):
        model.reset_metrics()  # otherwise Keras gives the mean since the first batch
        losses.append(float(model.train_on_batch(np.moveaxis(x, 1, -1), y)))
    return losses


def unbiased(running_variance, values):
    """What PyTorch's running variance is where Keras's is this one, after STEPS batches of so many values a channel.

    Both start at 1 and keep nine tenths in each step; PyTorch adds a tenth of the unbiased variance of the batch,
    Keras of the biased one, which is (n - 1) / n of it.
    """
    kept = 0.9**STEPS
    return kept + (running_variance - kept) * values / (values - 1)


@pytest.mark.parametrize(
    ("optimizer", "maximum", "epsilon"),
    [
        (AdamW, 0.05, 1e-8),
        pytest.param(AdamW, 0.01, 1e-3, marks=pytest.mark.backend_independent),
        pytest.param(Muon, 0.05, 1e-8, marks=needs_muon),
    ],
    ids=["CIFAR-10", "ImageNet", "the short recipe"],
)
@pytest.mark.parametrize("builder", NETWORKS)
def test_ten_steps_are_pytorchs(builder, optimizer, maximum, epsilon):
    arguments, layout = NETWORKS[builder]
    torch.manual_seed(0)
    network = torch_networks.counterpart(builder, {**SIZES, **arguments}, layout)
    model = getattr(keras_mixers, builder)(**SIZES, **arguments, data_format="channels_last")
    keras_mixers.load_torch_weights(model, network.state_dict())
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, labels = batches()

    expected_losses = train_in_pytorch(network, images, labels, optimizer, maximum, epsilon)
    losses = train_in_keras(model, images, labels, optimizer, maximum, epsilon)

    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    values = BATCH * (SIDE // SIZES["patch_size"]) ** 2
    found = keras_mixers.to_torch_state_dict(model, layout)
    for name, expected in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        # The running variances differ by 3e-4 by definition, and agree far closer once that is accounted for.
        variance = name.endswith("running_var")
        weight, bound = (unbiased(found[name], values), 5e-5) if variance else (found[name], 1e-3)
        assert torch.linalg.norm(weight - expected) <= bound * torch.linalg.norm(expected), name
        assert not variance or torch.linalg.norm(found[name] - expected) > bound * torch.linalg.norm(expected), name
        assert not torch.equal(expected, start[name]), f"{name} was not trained"
