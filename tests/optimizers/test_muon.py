"""Muon: kernels move along orthogonal directions, everything else as AdamW has it."""

import keras
import numpy as np
import pytest
import torch

import keras_mixers
from keras_mixers.training import AdamW, Muon

OLD = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13)
needs_muon = pytest.mark.skipif(OLD, reason=f"Keras {keras.__version__} has no Muon for all of a model's weights")
RATE, DECAY, MOMENTUM = 0.05, 0.1, 0.95


def variable(value, name):
    with keras.name_scope(name):
        return keras.Variable(value.astype("float32"), name="kernel")


def apply(optimizer, weights, gradients):
    optimizer.build(weights)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g.astype("float32")) for g in step])
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


def orthogonalized(matrix):
    """Five steps of Newton and Schulz, as Muon's author has them."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


# Pointwise, patch embedding, depthwise along one axis and along both: shape and matrix.
KERNELS = [((6, 6), (6, 6)), ((5, 8), (5, 8)), ((8, 5), (8, 5)), ((2, 2, 3, 8), (12, 8)), ((1, 5, 8, 1), (5, 8)),
           ((3, 3, 8, 1), (9, 8))]  # fmt: skip


@needs_muon
@pytest.mark.parametrize(("shape", "matrix"), KERNELS)
def test_a_kernel_follows_its_definition(shape, matrix, rng):
    start, gradients = rng.standard_normal(shape), rng.standard_normal((3, *shape))
    expected, momentum = start.copy(), np.zeros(shape)
    for gradient in gradients:
        expected *= 1 - RATE * DECAY
        momentum = MOMENTUM * momentum + gradient
        step = orthogonalized((gradient + MOMENTUM * momentum).reshape(matrix))
        expected -= RATE * 0.2 * np.sqrt(max(matrix)) * step.reshape(shape)
    (found,) = apply(Muon(RATE, weight_decay=DECAY), [variable(start, "a_kernel")], gradients[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@needs_muon
@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
@pytest.mark.parametrize(("name", "shape"), [("head", (6, 4)), ("norm", (7,))])
def test_everything_else_follows_adamw(name, shape, epsilon, rng):
    """PyTorch's: Keras's own adds a large epsilon in another place."""
    start, gradients = rng.standard_normal(shape), rng.standard_normal((3, 1, *shape))
    (found,) = apply(Muon(RATE, weight_decay=DECAY, epsilon=epsilon), [variable(start, name)], gradients)
    expected = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    adamw = torch.optim.AdamW([expected], lr=RATE, weight_decay=DECAY, eps=epsilon)
    for (gradient,) in gradients:
        expected.grad = torch.tensor(gradient, dtype=torch.float32)
        adamw.step()
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)


@needs_muon
def test_in_a_network_all_kernels_are_matrices_but_the_heads():
    model = keras_mixers.SplitMixerI(dim=8, blocks=2, kernel_size=3, input_shape=(8, 8, 3))
    optimizer = Muon()
    optimizer.build(model.trainable_variables)
    matrices = [w.path for w in model.trainable_variables if not optimizer._should_use_adamw(w)]
    kernels = [w.path for w in model.trainable_variables if w.path.endswith("kernel")]
    assert [*matrices, "head/kernel"] == kernels
    assert len(kernels) == 1 + 2 * 3 + 1


@needs_muon
def test_survives_a_config_and_a_keras_file(tmp_path, rng):
    optimizer = Muon(0.02, weight_decay=0.1, global_clipnorm=1.0)
    assert Muon.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    x, y = rng.standard_normal((8, 8, 8, 3)).astype("float32"), np.arange(8) % 3
    model = keras_mixers.SplitMixerI(
        dim=8, blocks=1, kernel_size=3, num_classes=3, input_shape=(8, 8, 3), data_format="channels_last"
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, y, epochs=2, verbose=0)
    for here, there in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.backend_independent
@pytest.mark.parametrize("kind", [AdamW, pytest.param(Muon, marks=needs_muon)])
@pytest.mark.parametrize("epsilon", [0, -1e-8, "small"])
def test_both_optimisers_refuse_an_epsilon_that_is_not_positive(kind, epsilon):
    with pytest.raises(ValueError, match="epsilon must be a positive number, got epsilon="):
        kind(epsilon=epsilon)


@pytest.mark.backend_independent
@pytest.mark.parametrize("version", ["3.10.0", "3.12.1"])
def test_says_that_keras_is_too_old(version, monkeypatch):
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(ImportError, match=rf"Muon needs Keras 3.13 or newer, got {version}: pip install -U keras"):
        Muon()
