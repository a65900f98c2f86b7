"""Eight-bit feature maps: norms are fitted to what rounding leaves, and no join has a coarser range than it needs."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from drawn_images import scenes
from keras import ops
from small_networks import small

import keras_mixers
from keras_mixers.export import export_model
from keras_mixers.export.folding import Form, lower
from keras_mixers.export.integer_norms import FITTED_BEHIND, _is_norm_behind, fit_norms, fitted_norms, rounded

INTEGERS = Form(units=False, multiply_add="depthwise", dense=False)


@pytest.fixture
def network(randomize):
    """A network with channels that are all but constant before a norm, as trained ones have."""
    network = randomize(small("SplitMixerI", dim=24, input_shape=(16, 16, 3)))
    network.pixels = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    mixer = network.get_layer("block_0_spatial")
    convolution, norm = mixer.height_convolution, mixer.height_norm
    kernel = np.array(ops.convert_to_numpy(convolution.kernel))
    kernel[:, :, :6] *= 0.1
    convolution.kernel.assign(kernel)
    for weight, value in (
        (convolution.bias, -3),  # of which GELU leaves -0.004
        (norm.moving_mean, -0.004),
        (norm.moving_variance, 1e-6),
    ):
        values = np.array(ops.convert_to_numpy(weight))
        values[:6] = value
        weight.assign(values)
    return network


@pytest.mark.backend_independent
def test_rounds_as_integers_do():
    values = np.array([-0.17, -0.02, 0.0, 0.3, 10.0])
    step = 10.17 / 255
    np.testing.assert_allclose(rounded(values, -0.17, 10.0), [-4 * step, -step, 0, 8 * step, 251 * step])
    assert not rounded(np.zeros(3), 0.0, 0.0).any()


@keras.saving.register_keras_serializable("tests")
class Rounding(keras.layers.Layer):
    """Eight bits, as `rounded` has them."""

    def __init__(self, low, high, **options):
        super().__init__(**options)
        self.step = max((max(high, 0) - min(low, 0)) / 255, 1e-30)
        self.lowest = np.rint(min(low, 0) / self.step)

    def call(self, x):
        return ops.clip(ops.round(x / self.step), self.lowest, self.lowest + 255) * self.step


def with_rounding(network, images):
    """The same network, and its layers, with each result and each kernel rounded to eight bits."""

    def call(operation, *arguments, **options):
        ys, originals = operation(*arguments, **options), before[operation.name].output
        if not isinstance(ys, list | tuple):
            return rounding(ys, originals)
        return [rounding(y, original) for y, original in zip(ys, originals, strict=True)]

    def rounding(y, original):
        values = ops.convert_to_numpy(keras.Model(network.input, original)(images))
        return Rounding(float(values.min()), float(values.max()))(y)

    before = {operation.name: operation for operation in network.operations}
    copy = keras.models.clone_model(network, call_function=call)
    for layer in copy.layers:
        if not layer.weights:
            continue
        kernel, bias = before[layer.name].get_weights()
        channels = (2, 3) if isinstance(layer, keras.layers.DepthwiseConv2D) else (kernel.ndim - 1,)
        steps = np.abs(kernel).max(tuple({*range(kernel.ndim)} - {*channels}), keepdims=True) / 127
        layer.set_weights([np.rint(kernel / steps) * steps, bias])
    return copy


@pytest.mark.backend_independent
@pytest.mark.parametrize("builder", ["ConvMixer", "SplitMixerII"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_fits_are_those_of_least_squares_to_what_rounding_leaves(data_format, builder, randomize, rng):
    images = rng.normal(size=(6, 8, 8, 3)).astype("float32")
    written = lower(randomize(small(builder)), replace(INTEGERS, data_format=data_format))
    norms = fitted_norms(written)
    assert len(norms) >= 5
    before = keras.Model(written.input, [norm.output for norm in norms])(images)
    rounding = with_rounding(written, images)
    fit_norms(written, images)
    for norm, y in zip(norms, before, strict=True):
        rounding.get_layer(norm.name).set_weights(norm.get_weights())
        q = keras.Model(rounding.input, rounding.get_layer(norm.name).input)(
            rounded(images, images.min(), images.max())
        )
        axis = -1 if data_format == "channels_last" else 1
        q, y = (
            np.moveaxis(ops.convert_to_numpy(x), axis, 0).reshape(q.shape[axis], -1).astype("float64") for x in (q, y)
        )
        for channel, a, b in zip(range(len(q)), *(weight.ravel() for weight in norm.get_weights()), strict=True):
            if np.ptp(q[channel]) > 0:
                line = np.stack([q[channel], np.ones_like(q[channel])], 1)
                expected, *_ = np.linalg.lstsq(line, y[channel], rcond=None)
                if abs(expected[0]) > 1e-3:
                    np.testing.assert_allclose([a, b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.backend_independent
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channels_that_round_to_nothing_give_their_mean(data_format, network, rng):
    images = rng.normal(size=(6, 16, 16, 3)).astype("float32")
    written = lower(network, replace(INTEGERS, data_format=data_format))
    norm = written.get_layer("block_0_spatial_branch_norm")
    y = ops.convert_to_numpy(keras.Model(written.input, norm.output)(images)).astype("float64")
    y = np.moveaxis(y, -1 if data_format == "channels_last" else 1, 0).reshape(24, -1)
    fit_norms(written, images)
    a, b = (weight.ravel() for weight in norm.get_weights())
    np.testing.assert_allclose(b[:6], y[:6].mean(1), rtol=1e-5)
    assert (a[:6] <= 1e-3).all()


@pytest.mark.backend_independent
def test_images_are_left_out_that_would_take_too_much_memory(network, monkeypatch, rng):
    images = rng.normal(size=(6, 16, 16, 3)).astype("float32")
    written, other = (lower(network, INTEGERS) for _ in range(2))
    fit_norms(written, images[:2])
    monkeypatch.setattr("keras_mixers.export.integer_norms.LARGEST_MAP", 2 * 8 * 8 * 24 + 1)
    fit_norms(other, images)
    for one, two in zip(written.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_integers_make_no_noise_of_channels_that_are_all_but_constant(suffix, network, tmp_path, monkeypatch):
    writer = {".tflite": "tensorflow", ".onnx": "torch"}[suffix]
    if keras.backend.backend() != writer:
        pytest.skip(f"{writer} writes it, whichever backend starts it")

    def difference(name):
        arguments = {"quantization": "int8", "representative_data": scenes(8, 16), "tolerance": 100}
        return export_model(network, tmp_path / f"{name}{suffix}", **arguments).max_difference

    fitted = difference("fitted")
    monkeypatch.setattr(f"keras_mixers.export.{'litert' if suffix == '.tflite' else 'onnx'}.fit_norms", lambda *_: None)
    assert fitted < 0.5 * difference("as_trained")


def quantized(path):
    """A file's integers for the scales of norms with their steps, and the steps of feature maps."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        found = [node.input for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
        kernels = [[constants[name] for name in names] for names in found]
        maps = [constants[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
        return [(kernel - 128.0, step) for kernel, step, _ in kernels if kernel.shape[1:] == (1, 1, 1)], maps
    from tensorflow.lite.tools import flatbuffer_utils

    network = flatbuffer_utils.read_model(str(path))
    (graph,) = network.subgraphs
    kernels = [graph.tensors[each.inputs[1]] for each in graph.operators if len(each.inputs) == 3]
    maps = [graph.tensors[each.outputs[0]].quantization.scale for each in graph.operators]
    return [
        (np.asarray(network.buffers[kernel.buffer].data).view("int8"), np.asarray(kernel.quantization.scale))
        for kernel in kernels
        if [*kernel.shape[:-1]] == [1, 1, 1]
    ], [scale[0] for scale in maps if scale is not None]


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_scales_of_norms_are_exact_and_ranges_those_of_before(suffix, network, tmp_path, monkeypatch):
    """Runtimes' own ranges for a kernel leave out half a step, and fitted norms would widen those of feature maps."""
    module, writer = {".tflite": ("litert", "tensorflow"), ".onnx": ("onnx", "torch")}[suffix]
    if keras.backend.backend() != writer:
        pytest.skip(f"{writer} writes it, whichever backend starts it")
    scales = {}

    def export(factor):
        def fit(model, *arguments):
            fit_norms(model, *arguments)
            for norm in fitted_norms(model):
                norm.set_weights([factor * norm.get_weights()[0], norm.get_weights()[1]])
            scales[factor] = [norm.get_weights()[0].ravel() for norm in fitted_norms(model)]

        monkeypatch.setattr(f"keras_mixers.export.{module}.fit_norms", fit)
        path = tmp_path / f"{factor}{suffix}"
        export_model(network, path, quantization="int8", representative_data=scenes(8, 16), tolerance=1e6)
        return quantized(path)

    (norms, maps), (hundredfold, same_maps) = export(1), export(100)
    for factor, found in ((1, norms), (100, hundredfold)):
        assert all({*np.abs(integers).ravel()} == {127} for integers, _ in found)
        stored = sorted(tuple(integers.ravel() * step) for integers, step in found)
        for one, other in zip(stored, sorted(map(tuple, scales[factor])), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    assert len(maps) > 20
    np.testing.assert_array_equal(maps, same_maps)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_norms_that_are_equal_and_share_their_weights(suffix, tmp_path):
    writer = {".tflite": "tensorflow", ".onnx": "torch"}[suffix]
    if keras.backend.backend() != writer:
        pytest.skip(f"{writer} writes it, whichever backend starts it")
    network = small(dim=24, input_shape=(16, 16, 3))  # untrained
    network.pixels = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    arguments = {"quantization": "int8", "representative_data": scenes(8, 16)}
    assert export_model(network, tmp_path / f"network{suffix}", **arguments).max_difference < 0.1


@pytest.mark.backend_independent
@pytest.mark.parametrize("builder", ["SplitMixerI", "SplitMixerII", "SplitMixerIII", "SplitMixerV"])
def test_channels_are_joined_on_the_scale_of_their_norm(builder, randomize):
    """Convolved channels reach ten times as far as those that were passed by, until a norm follows."""
    network = randomize(small(builder, dim=12, blocks=3))

    def joins_behind_norms(form):
        joins = [each for each in lower(network, form).operations if type(each).__name__ == "Concatenate"]
        parts = [[part._keras_history.operation for part in join._inbound_nodes[-1].input_tensors] for join in joins]
        return [all(_is_norm_behind(part, *FITTED_BEHIND) for part in each) for each in parts]

    once_more = 3 if builder == "SplitMixerV" else 0  # between its two steps nothing is activated
    assert joins_behind_norms(INTEGERS).count(True) == 3
    assert joins_behind_norms(INTEGERS).count(False) == once_more
    assert not any(joins_behind_norms(Form(multiply_add="depthwise")))  # floats take one activation for all


@pytest.mark.backend_independent
@pytest.mark.parametrize(("builder", "pieces"), [("ConvMixer", 1), ("SplitMixerI", 2), ("SplitMixerIV", 5)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_last_norm_follows_the_mean_and_is_fitted_to_it(data_format, builder, pieces, randomize, rng):
    """Before the mean, a few channels reach a hundred times as far as their means."""
    written = lower(randomize(small(builder)), replace(INTEGERS, data_format=data_format))
    norms = [layer for layer in written.layers if _is_norm_behind(layer, keras.layers.GlobalAveragePooling2D)]
    assert len(norms) == pieces
    means = [norm.input._keras_history.operation for norm in norms]
    assert all(isinstance(mean.input._keras_history.operation, keras.layers.Activation) for mean in means)
    before = norms[0].get_weights()[0]
    images = rng.normal(size=(3, 8, 8, 3)).astype("float32")
    fit_norms(written, images)
    assert np.abs(norms[0].get_weights()[0] - before).max() > 1e-4


@pytest.mark.backend_independent
def test_scales_of_a_trained_splitmixer_reach_1000_times_their_median():
    written = lower(keras_mixers.create_model("splitmixer_i_256_8", weights="cifar10"), INTEGERS)
    norms = [layer for layer in written.layers if _is_norm_behind(layer, keras.layers.Activation)]
    scales = np.concatenate([np.abs(norm.get_weights()[0]).ravel() for norm in norms])
    assert scales.max() > 1000 * np.median(scales)
