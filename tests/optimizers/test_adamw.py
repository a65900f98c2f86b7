"""The optimiser is PyTorch's AdamW, also where epsilon is as large as the gradients."""

import keras
import numpy as np
import pytest
import torch

from keras_mixers.training import AdamW


def steps(optimizer, start, gradients):
    """Give a weight after each of the optimiser's steps."""
    weight = keras.Variable(start)
    optimizer.build([weight])
    return [
        (optimizer.apply([keras.ops.convert_to_tensor(g)]), keras.ops.convert_to_numpy(weight))[1] for g in gradients
    ]


def torch_steps(start, gradients, **options):
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([weight], **options)
    found = []
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        found.append(weight.detach().numpy().copy())
    return found


@pytest.fixture
def gradients(rng):
    """Gradients of a weight of 50 numbers, some of them far below the large epsilon."""
    return (rng.standard_normal((30, 50)) * np.logspace(-6, 0, 50)).astype("float32")


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_is_pytorchs(epsilon, gradients, rng):
    start = rng.standard_normal(50).astype("float32")
    found = steps(AdamW(0.05, weight_decay=0.1, epsilon=epsilon), start, gradients)
    expected = torch_steps(start, gradients, lr=0.05, weight_decay=0.1, eps=epsilon)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_kerass_own_is_not(gradients, rng):
    """The reason for this class: Keras's epsilon holds small gradients back in the first steps."""
    start = np.zeros(50, "float32")
    found = steps(keras.optimizers.AdamW(0.05, weight_decay=0, epsilon=1e-3), start, gradients)
    expected = torch_steps(start, gradients, lr=0.05, weight_decay=0, eps=1e-3)
    assert np.abs(found[0] / expected[0]).min() < 0.04  # 1 / sqrt(1 / 0.001) = 0.032 for the smallest gradients


def test_defaults_are_pytorchs(gradients, rng):
    start = rng.standard_normal(50).astype("float32")
    np.testing.assert_allclose(steps(AdamW(), start, gradients), torch_steps(start, gradients), rtol=1e-4, atol=1e-6)


def test_survives_a_config_and_a_keras_file(tmp_path, rng):
    optimizer = AdamW(0.02, weight_decay=0.1, epsilon=1e-3, global_clipnorm=1.0)
    assert AdamW.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    assert optimizer.get_config()["epsilon"] == 1e-3
    x, y = rng.standard_normal((8, 3)).astype("float32"), rng.standard_normal((8, 2)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, y, epochs=3, shuffle=False, verbose=0)  # the order changes the last digit
    for here, there in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-6)


def test_updates_all_weights_at_once_on_pytorch():
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch updates all weights in one call")
    assert hasattr(AdamW, "_parallel_update_step")
