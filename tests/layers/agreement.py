"""What it means for a Keras layer to agree with its reference, on whichever backend runs."""

import functools

import keras
import numpy as np
import pytest

from keras_mixers import backends

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

both_formats = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])

# What every layer takes besides the defaults.
OTHER_OPTIONS = [{"activation": "relu"}, {"activation": None}, {"normalization": "layer"}, {"normalization": None}]


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def transposed(shape):
    """Give a channels-last shape, or array, as channels first."""
    if isinstance(shape, np.ndarray):
        return np.moveaxis(shape, -1, 1)
    return (shape[0], shape[-1], *shape[1:-1])


def run(layer, x, training=False):
    """Call a layer on a channels-last array and give its output as one, whichever format the layer has."""
    channels_first = layer.data_format == "channels_first"
    x = np.asarray(transposed(x) if channels_first else x, "float32")
    y = array(layer(x, training=training))
    assert y.shape == layer.compute_output_shape(x.shape)
    return np.moveaxis(y, 1, -1) if channels_first else y


def built(layer, input_shape):
    """Build a layer for a channels-last shape, whichever format the layer has."""
    layer.build(transposed(input_shape) if layer.data_format == "channels_first" else input_shape)
    return layer


def norm_of(norm):
    """Give the weights of a norm as the reference takes them: a dict of arrays, empty without a norm."""
    return {weight.name: array(weight) for weight in norm.weights} if norm is not None else {}


def assert_agrees(layer, x, expected, norms):
    """Compare the output and then the norms' weights with `expected(training=...)`: in inference, then in training.

    `norms` are the layer's norms in the order of the equation.
    """
    for training in (False, True):
        y, expected_norms = expected(training=training)
        np.testing.assert_allclose(run(layer, x, training), y, **TOLERANCE)
        for norm, expected_norm in zip(norms, expected_norms, strict=True):
            found = norm_of(norm)
            assert found.keys() == expected_norm.keys()
            for name in found:
                np.testing.assert_allclose(found[name], expected_norm[name], **TOLERANCE, err_msg=name)


def assert_equals_reference(function, layer, x, randomize, **options):
    """Compare a layer of one kernel, one bias and one norm, given random weights, with a function of the reference."""
    randomize(built(layer, x.shape))
    kernel, bias = map(array, layer.weights[:2])
    assert_agrees(layer, x, functools.partial(function, x, kernel, bias, norm_of(layer.norm), **options), [layer.norm])


def weight_gradients(layer, x, upstream):
    """Give the gradient of sum(upstream * layer(x)), in training, for each trainable weight of the layer."""
    x, upstream = np.asarray(x, "float32"), np.asarray(upstream, "float32")
    weights = layer.trainable_variables
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(x, training=True), "float32") * upstream)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
    elif backend == "jax":
        import jax

        def loss(values):
            y, _ = layer.stateless_call(values, [v.value for v in layer.non_trainable_variables], x, training=True)
            return (y.astype("float32") * upstream).sum()

        gradients = jax.jit(jax.grad(loss))([weight.value for weight in weights])
    else:
        (layer(x, training=True).float() * keras.ops.convert_to_tensor(upstream)).sum().backward()
        gradients = [weight.value.grad for weight in weights]
    return [array(gradient) for gradient in gradients]


def gradients(function, upstream, *inputs):
    """Give the gradient of sum(upstream * function(*inputs)) for each input."""
    inputs, upstream = [np.asarray(value, "float32") for value in inputs], np.asarray(upstream, "float32")
    return [array(gradient) for gradient in backends.value_and_gradients(function, inputs, upstream)[1]]
