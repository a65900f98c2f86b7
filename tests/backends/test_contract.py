"""What a backend computes itself equals the contract: values and gradients, in both layouts, float32 and bfloat16."""

import contextlib
import functools
import math
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_mixers import backends
from keras_mixers.backends import contract
from keras_mixers.layers.channel_mixers import PointwiseConvolution
from keras_mixers.layers.normalization import BatchNormalization, ChannelNormalization

SHAPE = (2, 5, 6, 6)  # as many columns as channels
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}

both_formats = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
both_precisions = pytest.mark.parametrize("dtype", TOLERANCE)


def arrays(*values):
    return [np.asarray(ops.convert_to_numpy(ops.cast(value, "float32")), "float64") for value in values]


def assert_close(found, expected, dtype="float32"):
    for value, exact in zip(arrays(*found), arrays(*expected), strict=True):
        assert value.shape == exact.shape
        assert np.abs(value - exact).max() <= TOLERANCE[dtype] * max(np.abs(exact).max(), 1)


def assert_agree(own, reference, inputs, rng, dtype="float32", casts=None):
    """Compare two functions of tensors, and the gradients for inputs, the first of which (all) are cast to `dtype`."""

    def cast(function):
        def of_float32(*values):
            values = [ops.cast(value, dtype) for value in values[:casts]] + list(values[len(values[:casts]) :])
            return ops.cast(function(*values), "float32")

        return of_float32

    inputs = [np.asarray(value, "float32") for value in inputs]
    upstream = rng.normal(size=ops.shape(cast(reference)(*map(ops.convert_to_tensor, inputs)))).astype("float32")
    found, expected = (backends.value_and_gradients(cast(f), inputs, upstream) for f in (own, reference))
    assert_close([found[0], *found[1]], [expected[0], *expected[1]], dtype)


@both_precisions
@both_formats
@pytest.mark.parametrize("name", ["depthwise_native", "depthwise_shifted"])
@pytest.mark.parametrize("size", [(1, 5), (4, 1), (3, 3)], ids=str)
def test_depthwise(size, name, data_format, dtype, rng):
    inputs = rng.normal(size=SHAPE), rng.normal(size=(*size, 5 if data_format == "channels_first" else 6, 1)) / 3
    bias = rng.normal(size=inputs[1].shape[2])

    def of(function):
        return lambda x, kernel, bias: function(x, kernel, data_format, bias)

    for expected in (contract.depthwise_native, contract.depthwise_shifted):
        assert_agree(of(getattr(backends, name)), of(expected), (*inputs, bias), rng, dtype)


@pytest.fixture(params=[True, False], ids=["convolved", "multiplied"])
def either_product(request, monkeypatch):
    """PyTorch computes 1 x 1 convolutions in two ways, of which it takes the one that is faster on the processor."""
    if backends.NAME == "torch":
        monkeypatch.setattr("keras_mixers.backends.torch.CONVOLVES_FASTER", request.param)
    elif request.param:
        pytest.skip("only PyTorch has two ways")


@both_precisions
@both_formats
@pytest.mark.usefixtures("either_product")
@pytest.mark.parametrize("name", ["pointwise_conv", "patch_conv"])
def test_pointwise(name, data_format, dtype, rng):
    """Patches are compared in channels last, as TensorFlow convolves nothing else on every CPU."""

    def of(module):
        if name == "pointwise_conv":
            return lambda *values: module.pointwise_conv(*values, data_format)
        last = module is contract and data_format == "channels_first"
        layout = "channels_last" if last else data_format

        def convolve(x, kernel, bias):
            x = ops.moveaxis(x, 1, -1) if last else x
            y = module.patch_conv(x, kernel[None, None], bias, (1, 1), "valid", layout)
            return ops.moveaxis(y, -1, 1) if last else y

        return convolve

    channels = 5 if data_format == "channels_first" else 6
    inputs = rng.normal(size=SHAPE), rng.normal(size=(channels, 4)) / 2, rng.normal(size=4)
    assert_agree(of(backends), of(contract), inputs, rng, dtype)
    if dtype == "float32":  # a patch of one pixel
        assert_agree(of(backends), lambda *v: contract.pointwise_conv(*v, data_format), inputs, rng)


@both_precisions
@both_formats
@pytest.mark.parametrize("name", ["pointwise_conv", "patch_conv", "depthwise_native", "depthwise_shifted"])
def test_gradient_of_a_bias_is_summed_in_float32(name, data_format, dtype, rng):
    """16,384 positions: in bfloat16, whose numbers are 1 apart from 128 on, a sum of ones would end at 256."""
    depthwise = name.startswith("depthwise")
    kernel = np.zeros((1, 5, 4, 1) if depthwise else (4, 4) if name == "pointwise_conv" else (2, 2, 4, 4), "float32")
    maps = (16, 64, 64, 4) if name == "patch_conv" else (16, 32, 32, 4)
    shape = maps if data_format == "channels_last" else (maps[0], maps[3], *maps[1:3])

    def biased(bias):
        stride = {"stride": (2, 2), "padding": "valid"} if name == "patch_conv" else {}
        x, cast_kernel = ops.zeros(shape, dtype), ops.cast(kernel, dtype)
        function = getattr(backends, name)
        if depthwise:
            return function(x, cast_kernel, data_format, ops.cast(bias, dtype))
        return function(x, cast_kernel, ops.cast(bias, dtype), data_format=data_format, **stride)

    upstream = rng.normal(0.5, 1, ops.shape(biased(np.zeros(4, "float32")))).astype("float32")
    upstream = ops.convert_to_numpy(ops.cast(ops.cast(upstream, dtype), "float32"))
    _, (found,) = backends.value_and_gradients(biased, [np.zeros(4, "float32")], upstream)
    axes = (0, 1, 2) if data_format == "channels_last" else (0, 2, 3)
    exact = upstream.astype("float64").sum(axes)
    assert np.abs(ops.convert_to_numpy(found) / exact - 1).max() < (1e-5 if dtype == "float32" else 2**-7)


@both_formats
@pytest.mark.usefixtures("either_product")
def test_spans(data_format, rng):
    axis = -1 if data_format == "channels_last" else 1
    x = ops.convert_to_tensor(np.moveaxis(rng.normal(size=(2, 5, 4, 6)), -1, axis), "float32")
    convolutions = {}
    for span in ((0, 2), (3, 6)):
        convolutions[span] = PointwiseConvolution(span[1] - span[0], data_format, bias_initializer="normal")
        convolutions[span].build(span[1] - span[0])
    cut, expected = backends.split(x, [2, 3], axis), contract.split(x, [2, 3], axis)
    assert_close(cut, expected)
    parts = dict(zip([(0, 2), (2, 3), (3, 6)], cut, strict=True))
    exact = contract.mix_spans(parts, convolutions, axis)
    for recording in (True, False):
        with no_gradients(not recording):
            assert_close([backends.mix_spans(parts, convolutions, axis)], [exact])
    assert_close([contract.join(expected, axis)], [x])


def no_gradients(are_off):
    if not are_off or backends.NAME != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


@both_precisions
@both_formats
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (1, 6, 1, 1), (1, 1, 1, 6)], ids=str)
def test_batch_norm(shape, training, data_format, dtype, rng):
    axis = -1 if data_format == "channels_last" else 1
    channels = shape[axis]
    mean, gamma, beta = rng.normal(size=(3, channels)).astype("float32")
    variance = rng.uniform(0.5, 1.5, channels).astype("float32")
    statistics = [ops.convert_to_tensor(value) for value in (mean, variance)]
    if training and np.prod(shape) == channels and (axis, backends.NAME) == (-1, "tensorflow"):
        pytest.skip("FusedBatchNorm of one value divides by zero, as before")  # Keras's gives beta

    def of(module, chosen):
        return lambda x, gamma, beta: module.batch_norm(x, *statistics, gamma, beta, axis, 1e-5, training)[chosen]

    inputs = rng.normal(size=shape), gamma, beta
    assert_agree(of(backends, 0), of(contract, 0), inputs, rng, dtype, casts=1)
    x = ops.cast(inputs[0], dtype)
    found, expected = (
        module.batch_norm(x, *statistics, *map(ops.convert_to_tensor, (gamma, beta)), axis, 1e-5, training)[1:]
        for module in (backends, contract)
    )
    assert_close(found, expected, dtype)


@both_precisions
@both_formats
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("make", [BatchNormalization, ChannelNormalization, None])
@pytest.mark.parametrize("with_residual", [False, True])
def test_post_norm(with_residual, make, activation, training, data_format, dtype, rng):
    axis = -1 if data_format == "channels_last" else 1
    norm = None
    if make is not None:
        layout = {"axis": axis} if make is BatchNormalization else {"data_format": data_format}
        norm = make(**layout, dtype="float32" if dtype == "float32" else f"mixed_{dtype}")
        norm.build(SHAPE)
        for weight in norm.weights:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    activation = keras.activations.get(activation)

    def of(module):
        def compute(x, residual):
            residual = residual if with_residual else residual * 0
            with keras.StatelessScope():  # in training the norm's statistics move
                return module.post_norm(x * 1, activation, norm, training, residual)

        return compute

    inputs = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    assert_agree(of(backends), of(contract), inputs, rng, dtype)
    x, residual = (ops.cast(value, dtype) for value in inputs)
    with no_gradients(True):
        found = backends.post_norm(x * 1, activation, norm, training, residual if with_residual else None)
        expected = contract.post_norm(x * 1, activation, norm, training, residual if with_residual else None)
    assert found.dtype == x.dtype
    assert_close([found], [expected], dtype)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 4e-7), ("float64", 1e-13)])
def test_gelu_of_dead_channels(dtype, error):
    """What is left of a GELU far below 0 does not grow with its input, and in float64 it is exact."""
    if dtype == "float64" and backends.NAME == "jax":
        pytest.skip("JAX computes in float32 unless it is told otherwise")
    x = np.linspace(-40, -5, 1001).astype(dtype)
    expected = [0.5 * each * math.erfc(-each / 2**0.5) for each in x.tolist()]
    found = backends.activate(ops.convert_to_tensor(x), keras.activations.gelu)
    assert np.abs(ops.convert_to_numpy(found) - expected).max() < error


def slope_of_gelu(x):
    return 0.5 * math.erfc(-x / 2**0.5) + x * math.exp(-x * x / 2) / (2 * math.pi) ** 0.5


def test_slope_of_gelu():
    x = np.linspace(-40, 40, 4001).astype("float32")
    (found,) = backends.value_and_gradients(
        lambda x: backends.activate(x, keras.activations.gelu), [x], np.ones_like(x)
    )[1]
    expected = [slope_of_gelu(each) for each in x.tolist()]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(backends.NAME != "jax", reason="JAX alone has a rule of ours for both modes of differentiation")
def test_gelu_is_differentiable_in_both_modes_and_twice():
    import jax

    x = np.linspace(-6, 6, 101).astype("float32")
    gelu = functools.partial(backends.activate, activation=keras.activations.gelu)
    slope = [slope_of_gelu(each) for each in x.tolist()]
    curvature = (2 - x.astype("float64") ** 2) * np.exp(-(x.astype("float64") ** 2) / 2) / (2 * math.pi) ** 0.5
    np.testing.assert_allclose(jax.jvp(gelu, (x,), (np.ones_like(x),))[1], slope, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(gelu)))(x), curvature, atol=1e-6)


def test_value_and_gradients(rng):
    x, w, upstream = rng.normal(size=(3, 4, 2)).astype("float32")
    value, gradients = backends.value_and_gradients(lambda x, w: x * x * w, [x, w], upstream)
    assert_close([value, *gradients], [x * x * w, 2 * x * w * upstream, x * x * upstream])
    with pytest.raises(NotImplementedError, match=f"{backends.NAME!r} has no gradients"):
        contract.value_and_gradients(lambda x: x, [x])


def test_compiled_computes_the_same(rng):
    x = ops.convert_to_tensor(rng.normal(size=3), "float32")
    assert_close([backends.compiled(lambda x: ops.exp(x) * 2)(x)], [ops.exp(x) * 2])


@pytest.mark.parametrize("module", [backends, contract])
def test_memory_and_waiting(module):
    variable = keras.Variable(np.ones(3, "float32"))
    assert module.wait_for([variable]) is None
    assert module.peak_memory() > 10**7


WORK = """
import resource, sys
import numpy as np, keras, keras_mixers
from keras_mixers.training import keep_memory

if sys.argv[1] == "late":
    keras.ops.add(keras.ops.ones(3), 1)
print(keep_memory())
model = keras_mixers.SplitMixerI(dim=64, blocks=1, input_shape=(32, 32, 3))
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
batch = 516  # a feature map of more than 32 MiB, which glibc always returns
x, y = np.zeros((batch, 32, 32, 3), "float32"), np.zeros(batch, "int32")
faults = [0]
for step in range(8):
    model.train_on_batch(x, y)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(after - before for before, after in zip(faults, faults[1:])))  # once warm
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such settings")
@pytest.mark.parametrize("when", ["first", "late", "refused", "late, with oneDNN"])
def test_memory_is_kept(when):
    """A page fault is a page of 4 kB that the system provides anew: a step of training takes 500 MB."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "KERAS_MIXERS_KEEP_MEMORY": str(int(when != "refused"))}
    onednn = when.endswith("oneDNN")
    if onednn and backends.NAME != "tensorflow":
        pytest.skip("with oneDNN TensorFlow keeps its memory itself")
    environment["TF_ENABLE_ONEDNN_OPTS"] = str(int(onednn))
    command = [sys.executable, "-c", WORK, when.split(",")[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()[-2:]
    own = when != "refused" if backends.NAME == "torch" else when == "first"
    assert kept == str(own)
    if own or onednn:
        assert int(faults) < 2000
    assert ("before the first array is made" in done.stderr) == (when == "late" and not own)


def test_a_device_can_be_assumed():
    before = backends.device()
    with backends.assume_device("tpu"):
        assert backends.device() == contract.device() == "tpu"
        assert backends.xla_is_fast()
        assert not backends.keep_memory()
    assert backends.device() == before
    assert contract.device() == "cpu"
    if before == "cpu":
        assert backends.gpu_name() == contract.gpu_name() == ""


def test_what_is_computed_is_that_of_the_assumed_device(monkeypatch, rng):
    """Only on a CPU, JAX sums shifted images of large kernels and TensorFlow has XLA compile its GELU."""
    own = {"jax": "shifted_products", "tensorflow": "gelu"}.get(backends.NAME)
    if own is None:
        pytest.skip("PyTorch computes alike on all devices")
    from importlib import import_module

    from keras_mixers.layers.depthwise import depthwise_conv

    module, used = import_module(f"keras_mixers.backends.{backends.NAME}"), []
    function = getattr(module, own)
    monkeypatch.setattr(module, own, lambda *values: used.append(own) or function(*values))
    x, kernel = (ops.convert_to_tensor(rng.normal(size=s), "float32") for s in (SHAPE, (5, 5, 6, 1)))
    for kind in ("cpu", "gpu"):
        with backends.assume_device(kind):
            depthwise_conv(x, kernel, "channels_last")
            backends.post_norm(x, keras.activations.gelu, None, False)
    assert used == [own]


@pytest.mark.skipif(backends.NAME != "torch", reason="Keras chooses the device on PyTorch alone")
def test_the_device_is_the_one_that_keras_chooses():
    with keras.device("meta"):
        assert backends.device() == "meta"
    with keras.device("cpu"):
        assert backends.device() == "cpu"


@both_precisions
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 3, 17)], ids=str)
def test_layer_norm(shape, dtype, rng):
    gamma, beta = rng.normal(size=(2, shape[-1])).astype("float32")

    def of(module):
        return lambda x, gamma, beta: module.layer_norm(x, gamma, beta, 1e-6)

    def exact(x, gamma, beta):
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        return gamma * (x - mean) / ops.sqrt(variance + 1e-6) + beta

    inputs = rng.normal(size=shape) + 3, gamma, beta
    assert_agree(of(backends), of(contract), inputs, rng, dtype, casts=1)
    if dtype == "float32":
        assert_agree(of(contract), exact, inputs, rng)
    x = ops.cast(inputs[0], dtype)
    assert backends.layer_norm(x, *map(ops.convert_to_tensor, (gamma, beta)), 1e-6).dtype == x.dtype


@both_precisions
@pytest.mark.parametrize("channels", [4, 7], ids=lambda count: f"{count} channels")  # as many as units, or not
def test_token_dense(channels, dtype, rng):
    inputs = rng.normal(size=(3, 6, channels)), rng.normal(size=(6, 4)) / 2, rng.normal(size=4)
    assert_agree(backends.token_dense, contract.token_dense, inputs, rng, dtype)
    if dtype == "float32":
        assert_agree(
            contract.token_dense, lambda x, kernel, bias: ops.einsum("btc,tu->buc", x, kernel) + bias[:, None],
            inputs, rng,
        )  # fmt: skip


@both_precisions
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_activate(activation, dtype, rng):
    activation, x = keras.activations.get(activation), rng.normal(size=SHAPE)
    assert_agree(lambda x: backends.activate(x * 1, activation), activation, [x], rng, dtype)
    x = ops.cast(x, dtype)
    with no_gradients(True):
        assert_close([backends.activate(x * 1, activation)], [activation(x)], dtype)


@both_precisions
@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "plain"])
def test_add_branch(scaled, dtype, rng):
    inputs = rng.normal(size=SHAPE), rng.normal(size=SHAPE), rng.normal(size=SHAPE[-1])

    def of(module):
        return lambda x, branch, scale: module.add_branch(x, branch * 1, scale if scaled else None) + 0 * ops.sum(scale)

    assert_agree(of(backends), of(contract), inputs, rng, dtype)
    x, branch, scale = (ops.cast(value, dtype) for value in inputs)
    with no_gradients(True):
        assert_close([of(backends)(x, branch, scale)], [x + branch * (scale if scaled else 1)], dtype)
    assert_close([x], [ops.cast(inputs[0], dtype)])
