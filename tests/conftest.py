"""What all tests share: the backend in the header, a seeded generator, and random values for weights."""

import math
import os

import numpy as np
import pytest

# Tests that run side by side share the cores, and PyTorch's threads would wait for each other.
if os.environ.get("KERAS_BACKEND") == "torch" and "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(threads, 1)))

if os.environ.get("KERAS_BACKEND") == "torch":
    import keras  # noqa: F401  before any test imports TensorFlow, after which PyTorch's compiler and PyPI's triton crash

# The command line switches it off where TensorFlow only feeds the images; what tests start would inherit that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# XLA's work on machine code takes longer than most tests; what it does to the operations stays as it is.
if os.environ.get("KERAS_BACKEND") == "jax":
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_configure(config):
    """Keep what JAX compiles, here and in subprocesses: a run takes a third of the time of the first."""
    if getattr(config, "cache", None) is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_report_header(config):
    import keras

    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def away_from_zero(rng, shape):
    """Give numbers that leave no channel nearly constant: a norm would blow up its rounding errors."""
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)


@pytest.fixture(scope="session")
def randomize():
    """Give every weight of a built layer or model a random value that keeps activations near 1, and return it."""

    def randomize(layer, seed=0):
        rng = np.random.default_rng(seed)
        for weight in layer.weights:
            if weight.path.endswith("variance"):
                value = rng.uniform(0.5, 1.5, weight.shape)
            elif weight.path.endswith("gamma"):
                value = away_from_zero(rng, weight.shape)
            elif len(weight.shape) > 1:
                depthwise = len(weight.shape) == 4 and weight.shape[-1] == 1
                fan_in = math.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
                value = away_from_zero(rng, weight.shape) * fan_in**-0.5
            else:
                value = rng.normal(scale=0.5, size=weight.shape)
            weight.assign(value.astype("float32"))
        return layer

    return randomize
