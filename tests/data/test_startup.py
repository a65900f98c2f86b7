import warnings

import keras
import pytest
import tensorflow as tf

from keras_mixers.data.startup import leave_gpus_to, require


@pytest.fixture
def hidden(monkeypatch):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_tensorflow_leaves_the_gpus_to_another_backend(hidden, backend):
    leave_gpus_to(backend)
    assert hidden == ([] if backend == "tensorflow" else [([], "GPU")])


def test_the_import_has_hidden_them():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow is the backend")
    assert tf.config.get_visible_devices("GPU") == []


def test_a_started_tensorflow_is_a_warning(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.warns(UserWarning, match="may hold GPU memory that jax needs: import keras_mixers.data first"):
        leave_gpus_to("jax")


def test_a_missing_package_is_named_with_its_remedy():
    with pytest.raises(ImportError, match=r'needs no_such_package: pip install "keras-mixers\[train\]"'):
        require("json", "no_such_package")


def test_nothing_is_said_where_nothing_is_wrong(hidden):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require("json")
        leave_gpus_to("jax")
