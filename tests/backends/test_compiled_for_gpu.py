"""What JAX computes on a GPU, judged without one: it equals the contract, with less traffic than plain Keras's.

XLA compiles for an H200 where JAX's plugin for CUDA is installed, which needs neither a GPU nor a driver:
`pip install --no-deps jax-cuda12-plugin==JAX jax-cuda12-pjrt==JAX`, both in JAX's version.
"""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mixers import backends
from keras_mixers.backends import contract
from keras_mixers.layers.depthwise import IMPLEMENTATIONS, depthwise_conv

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "scripts" / "gpu_compile.py"

pytestmark = pytest.mark.skipif(backends.NAME != "jax", reason="JAX alone compiles for a device that is not there")
compiles = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="compiling for a GPU needs pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt, in JAX's version",
)


@pytest.fixture
def on_gpu():
    with backends.assume_device("gpu"):
        yield


def relative_error(found, expected):
    found, expected = (np.asarray(value, "float64") for value in (found, expected))
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1)


# Equal to the contract, on whichever device the tests run.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_batch_norm_gives_the_contracts_values_and_gradients(axis, dtype, on_gpu, rng):
    """Of all three outputs: the contract's mean and variance have gradients too."""
    import jax
    from jax import numpy as jnp

    shape, channels = (4, 6, 5, 7), 7 if axis == -1 else 6
    x = jnp.asarray(rng.normal(1, 2, shape), dtype)
    gamma, beta, near = (jnp.asarray(rng.uniform(0.5, 1.5, channels), "float32") for _ in range(3))
    upstream = jnp.asarray(rng.normal(size=shape), dtype), *jnp.asarray(rng.normal(size=(2, channels)), "float32")

    def of(module):
        def compute(x, gamma, beta):
            return module.batch_norm(x, near, near, gamma, beta, axis, 1e-5, True)

        values, pull_back = jax.vjp(compute, x, gamma, beta)
        return [*values, *pull_back(upstream)]

    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    for found, expected in zip(of(backends), of(contract), strict=True):
        assert found.dtype == expected.dtype
        assert relative_error(found.astype("float32"), expected.astype("float32")) < tolerance


def test_batch_norm_keeps_three_digits_when_the_moving_mean_is_ten_deviations_away(on_gpu, rng):
    """Its variance loses as many digits as the square of that distance has, here two of six."""
    x = (10 + rng.normal(size=(8, 16, 16, 3))).astype("float32")
    zeros, ones = np.zeros(3, "float32"), np.ones(3, "float32")
    y, mean, variance = backends.batch_norm(x, zeros, ones, ones, zeros, -1, 1e-5, True)
    exact = x.astype("float64")
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(y, (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2)), rtol=1e-3, atol=1e-4)


def test_batch_norm_of_one_value_is_beta(on_gpu):
    x, three = np.full((1, 1, 1, 3), 7, "float32"), np.arange(3, dtype="float32")
    y, mean, variance = backends.batch_norm(x, three, three, three, three, -1, 1e-5, True)
    np.testing.assert_allclose(y[0, 0, 0], three, atol=1e-5)
    np.testing.assert_allclose(mean, [7, 7, 7], rtol=1e-6)
    np.testing.assert_allclose(variance, 0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(1, 5), (4, 1), (3, 3), (5, 5)], ids=str)
def test_shifted_images_give_the_contracts_values_and_gradients(size, data_format, dtype, on_gpu, rng):
    channels = 6 if data_format == "channels_last" else 5
    inputs = rng.normal(size=(2, 5, 6, 6)), rng.normal(size=(*size, channels, 1)) / 3
    inputs = [keras.ops.cast(value, dtype) for value in inputs]
    upstream = keras.ops.cast(rng.normal(size=inputs[0].shape), dtype)

    def of(function):
        value, gradients = backends.value_and_gradients(lambda *v: function(*v, data_format), inputs, upstream)
        return [keras.ops.cast(value, "float32") for value in (value, *gradients)]

    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    for found, expected in zip(of(backends.depthwise_shifted), of(contract.depthwise_native), strict=True):
        assert relative_error(found, expected) < tolerance


def test_small_kernels_are_shifted(monkeypatch, on_gpu, rng):
    used = []
    for name, convolve in IMPLEMENTATIONS.items():
        monkeypatch.setitem(IMPLEMENTATIONS, name, lambda *a, n=name, f=convolve: (used.append(n), f(*a))[1])
    for size in ((1, 5), (9, 1), (3, 3), (5, 5), (7, 7)):
        depthwise_conv(np.zeros((1, 4, 4, 2), "float32"), np.zeros((*size, 2, 1), "float32"), "channels_last")
    assert used == ["shifted"] * 3 + ["native"] * 2


# What XLA makes of it.


def run(code_or_script, *arguments):
    """Run Python beside this process: one that has JAX's plugin for CUDA but computes on the CPU."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, *code_or_script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_network(path):
    rows = read_rows(path)
    texts = ("network", "mode", "whose")
    numbers = [{key: float(value) for key, value in row.items() if key not in texts} for row in rows]
    return {tuple(row[text] for text in texts): values for row, values in zip(rows, numbers, strict=True)}


def check(readings, most):
    """Hold ours against plain Keras's: `most` has the most traffic relative to it, by network and mode."""
    for (network, mode), ratio in most.items():
        plain, ours = (readings[network, mode, whose] for whose in ("plain Keras", "ours"))
        assert ours["traffic_gib"] <= ratio * plain["traffic_gib"]
        assert ours["kernels"] < plain["kernels"]
        # ConvMixer's inference holds one feature map more: the product of matrices is not overwritten.
        assert ours["temporary_mib"] <= (1.51 if mode == "inference" else 1) * plain["temporary_mib"]
        assert ours["layout_copies"] == 0
        assert ours["loops"] == plain["loops"] == 0  # else traffic would be missing


@compiles
def test_less_traffic_than_plain_keras(tmp_path):
    """With two blocks: the whole networks are compiled by the script."""
    networks = ["splitmixer_i_256_8", "convmixer_768_32"]
    run([SCRIPT], "--blocks", 2, "--csv", tmp_path / "found.csv", "--networks", *networks)
    most = {
        ("splitmixer_i_256_8", "inference"): 0.72,
        ("splitmixer_i_256_8", "training"): 0.7,
        ("convmixer_768_32", "inference"): 1.01,
        ("convmixer_768_32", "training"): 0.9,
    }
    check(by_network(tmp_path / "found.csv"), most)


COUNT = """
import sys
import jax
from jax import numpy as jnp, lax
sys.path.insert(0, sys.argv[1])
from gpu_compile import compile_for_gpu, read

x = jax.ShapeDtypeStruct((64, 32, 32, 256), "float32")
for function in (
    lambda x: x + 1,
    lambda x: lax.optimization_barrier(jnp.moveaxis(x, -1, 1)) + 1,
    lambda x: lax.fori_loop(0, x.shape[0], lambda i, x: jnp.sin(x), x),
):
    found = read(compile_for_gpu(function, x), 64 * 32 * 32 * 256 * 4)
    print(found.kernels, found.traffic_gib, found.layout_copies > 0, found.loops)
"""


@compiles
def test_counts_what_is_there():
    plain, transposed, looped = (line.split() for line in run(["-c", COUNT], SCRIPT.parent).splitlines())
    assert plain == ["1", "0.12", "False", "0"]  # 64 MiB are read and 64 written
    assert transposed[2] == "True"
    assert looped[3] == "1"


ERF = """
import glob, os, sys
os.environ["XLA_FLAGS"] = f"--xla_dump_to={sys.argv[2]} --xla_dump_hlo_pass_re=NONE"
import jax
sys.path.insert(0, sys.argv[1])
from gpu_compile import compile_for_gpu

compile_for_gpu(jax.lax.erf, jax.ShapeDtypeStruct((8,), "float32"))
print("".join(open(path).read() for path in glob.glob(f"{sys.argv[2]}/*.ptx")))
"""


@compiles
def test_erf_is_one_far_from_zero(tmp_path):
    """Without that, a GELU needs a condition, with which XLA stores it: from 3.744 on the sign is chosen, times 1."""
    assembly = run(["-c", ERF], SCRIPT.parent, tmp_path)
    far = re.search(r"setp.ge.f32\s+(%p\d+), %r\d+, 0f406F9C68", assembly)[1]
    one = re.search(r"mov.b32\s+(%r\d+), 0f3F800000", assembly)[1]
    sign = re.search(rf"copysign.f32\s+(%r\d+), %r\d+, {one};", assembly)[1]
    assert re.search(rf"selp.f32\s+%r\d+, {sign}, %r\d+, {far};", assembly)


def check_exchanges(rows):
    """Hold what GPUs exchange in a training step: gradients once, statistics once per norm and direction."""
    for row in rows:
        network, (devices, norms, weights, *found) = row["network"], [int(float(row[name])) for name in EXCHANGES]
        all_reduces, reduced, all_gathers, gathered, others = found
        assert 2 <= all_reduces <= 2 + float(row["reduced_kib"]) // 2**14  # of bfloat16 and float32, in 30 MiB at most
        assert reduced - weights in (1, 2)  # and the loss, once or twice
        assert all_gathers == 2 * norms
        dim = int(re.search(r"mixer_(?:i_)?(\d+)", network)[1])
        assert gathered == devices * all_gathers * 2 * dim
        assert others == 0


EXCHANGES = ("devices", "norms", "other_weights", "all_reduces", "reduced", "all_gathers", "gathered", "others")


@compiles
def test_gpus_exchange_gradients_once_and_statistics_once_per_norm(tmp_path):
    networks = ["splitmixer_i_256_8", "convmixer_768_32"]
    run([SCRIPT], "--devices", 2, 8, "--blocks", 2, "--csv", tmp_path / "found.csv", "--networks", *networks)
    rows = read_rows(tmp_path / "found.csv")
    assert len(rows) == 4
    check_exchanges(rows)


# What was found.


def test_the_page_shows_what_was_found():
    readings = by_network(DOCS / "benchmarks" / "gpu_compile.csv")
    assert len(readings) == 4 * 2 * 2
    most = {
        ("splitmixer_i_256_8", "inference"): 0.7,
        ("splitmixer_i_256_8", "training"): 0.7,
        ("convmixer_256_8_p2_k5", "inference"): 1.01,
        ("convmixer_256_8_p2_k5", "training"): 0.9,
        ("convmixer_768_32", "inference"): 1.01,
        ("convmixer_768_32", "training"): 0.9,
        ("convmixer_1536_20", "inference"): 1.01,
        ("convmixer_1536_20", "training"): 0.9,
    }
    check(readings, most)
    shown = (DOCS / "speed.md").read_text()
    for network, mode in most:
        plain, ours = (readings[network, mode, whose] for whose in ("plain Keras", "ours"))
        cells = [f"{r['kernels']:.0f} / {r['traffic_gib']} / {r['temporary_mib']:.0f}" for r in (plain, ours)]
        ratio = ours["traffic_gib"] / plain["traffic_gib"]
        assert f"| `{network}` | {mode} | {cells[0]} | {cells[1]} | {ratio:.2f} |" in shown


def test_the_page_shows_what_gpus_exchange():
    rows = read_rows(DOCS / "benchmarks" / "gpu_exchanges.csv")
    assert len(rows) == 4 * 2
    check_exchanges(rows)
    shown = (DOCS / "devices.md").read_text()
    for row in rows:
        cells = (
            row[name] for name in ("devices", "norms", "all_reduces", "reduced_kib", "all_gathers", "gathered_kib")
        )
        assert f"| `{row['network']}` | {' | '.join(cells)} |" in shown
