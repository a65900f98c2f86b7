"""What processes share on PyTorch, seen in one process: norms of the whole batch, and random numbers of their own."""

import threading

import keras
import numpy as np
import pytest

from keras_mixers import backends

pytestmark = pytest.mark.skipif(backends.NAME != "torch", reason="the other backends have their own ways")


class TwoThreads:
    """Stands for torch.distributed between two threads, named 0 and 1."""

    def __init__(self):
        self.barrier, self.messages, self.exchanges = threading.Barrier(2, timeout=30), {}, 0

    def get_world_size(self):
        return 2

    def all_gather(self, places, own):
        for place, message in zip(places, self._messages(own), strict=True):
            place.copy_(message)

    def all_reduce(self, own):
        own.copy_(sum(self._messages(own)))

    def _messages(self, own):
        self.messages[threading.current_thread().name] = own.clone()
        self.exchanges += self.barrier.wait() == 0
        messages = [self.messages["0"], self.messages["1"]]
        self.barrier.wait()
        return messages


@pytest.mark.parametrize("offset", [0, 300])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_norms_of_two_unequal_parts_are_those_of_the_whole(axis, dtype, offset, monkeypatch, rng):
    """And as exact where the mean is 100 deviations away, where squares of x would leave two digits."""
    import torch

    from keras_mixers.backends import torch as own

    if dtype == "bfloat16" and offset:
        pytest.skip("bfloat16 itself has no digits left there")
    two = TwoThreads()
    monkeypatch.setattr(own, "dist", two)
    channels = 7 if axis == -1 else 6
    x = torch.tensor(rng.normal(offset, 3, (8, 6, 5, 7))).to(getattr(torch, dtype))
    upstream = torch.tensor(rng.normal(size=x.shape)).to(x.dtype)
    gamma, beta = (torch.tensor(rng.uniform(0.5, 1.5, channels), dtype=torch.float32) for _ in range(2))
    parts, results = {"0": slice(0, 3), "1": slice(3, 8)}, {}

    def compute(x, gamma, beta, upstream):
        x, gamma, beta = (each.clone().requires_grad_() for each in (x, gamma, beta))
        y, mean, variance = own.batch_norm(x, gamma, gamma, gamma, beta, axis, 1e-5, True)
        y.backward(upstream)
        return y, mean, variance, x.grad, gamma.grad, beta.grad

    def run():
        name = threading.current_thread().name
        with own.sharing_batches():
            results[name] = compute(x[parts[name]], gamma, beta, upstream[parts[name]])

    threads = [threading.Thread(target=run, name=name) for name in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert two.exchanges == 2  # one each way

    exact = compute(*(each.double() for each in (x, gamma, beta, upstream)))
    first, second = results["0"], results["1"]
    found = torch.cat([first[0], second[0]]), *first[1:3], torch.cat([first[3], second[3]])
    found = *found, first[4] + second[4], first[5] + second[5]  # as gradients of weights are added
    assert all(torch.equal(first[i], second[i]) for i in (1, 2))
    tolerance = (
        2e-2 if dtype == "bfloat16" else 1e-5 if not offset else 1e-4
    )  # x itself has four digits after the point
    for values, expected in zip(found, exact, strict=True):
        values, expected = values.detach().double().numpy(), expected.detach().numpy()
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))


def test_processes_start_alike_and_draw_numbers_of_their_own():
    import torch.distributed as dist

    from keras_mixers.data import DataShard
    from keras_mixers.training.devices_on_torch import TorchDevices

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        drawn, states = [], []
        for process in (0, 1):
            layer = keras.layers.Dropout(0.5, seed=1)
            model = keras.Sequential([keras.Input((1000,)), layer])
            model.compile(keras.optimizers.SGD(), "mse")
            TorchDevices(DataShard(process, 2, 2)).prepare(model)
            drawn.append(keras.ops.convert_to_numpy(model(np.ones((1, 1000), "float32"), training=True)))
            states.append(keras.ops.convert_to_numpy(layer.seed_generator.state).tolist())
    finally:
        dist.destroy_process_group()
    assert 300 < np.count_nonzero(drawn[0] != drawn[1]) < 700
    assert states[0] == states[1]  # which checkpoints keep
