"""LiteRT's .tflite files: written by TensorFlow's converter, run by ai-edge-litert."""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.export.folding import Form
from keras_mixers.export.format import Format, Job, Quantization, Run
from keras_mixers.export.integer_norms import fit_norms, fitted_norms
from keras_mixers.export.saved_model import save

DEPTHWISE_TAPS = 25  # XNNPACK has kernels for up to so many, and computes larger ones ten times slower


class LiteRT(Format):
    """A .tflite file of builtin operations; its metadata are in a zip archive at its end, as Android's tools expect."""

    title = "LiteRT"
    suffix = ".tflite"
    backend = "tensorflow"
    packages = ("tensorflow", "ai_edge_litert")
    extra = "litert"
    quantizations = {
        "float16": Quantization(1e-2),
        "dynamic": Quantization(0.1),
        "int8": Quantization(0.3, calibrated=True, integer_io=True),
    }

    def form(self, form: Form, quantization: str | None) -> Form:
        # For a Dense layer the converter computes shapes where the batch size varies, which XNNPACK cannot do.
        form = replace(form, depthwise_taps=DEPTHWISE_TAPS, dense=False)
        if form.folded:
            # int8 has one range per tensor: channels stay on the scale of the norm's output. With eight-bit weights
            # alone a convolution would round what it takes, as a product and a sum do not.
            multiply_add = "norm" if quantization == "dynamic" else "depthwise"
            form = replace(form, multiply_add=multiply_add, units=quantization not in ("dynamic", "int8"))
        # The converter cannot quantise a cast: the pixels enter as float32, which it replaces by uint8.
        return replace(form, raw="float32") if form.raw and quantization == "int8" else form

    def write(self, model: keras.Model, job: Job) -> None:
        import tensorflow as tf
        from tensorflow.lite.tools import flatbuffer_utils

        raw = job.form.raw is not None
        saved = job.folder / "saved_model"
        save(model, job, saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if job.quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if job.quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if job.quantization == "int8":
            converter.representative_dataset = lambda: ([images] for images in _calibration_images(job))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            if raw or job.integer_io:
                converter.inference_input_type = tf.uint8 if raw else tf.int8
            if job.integer_io:
                converter.inference_output_type = tf.int8
        network = converter.convert()
        if job.quantization in ("dynamic", "int8"):
            flatbuffer = flatbuffer_utils.convert_bytearray_to_object(bytearray(network))
            if job.quantization == "int8" and job.form.folded:
                _fit_norms(flatbuffer, model, np.concatenate([*job.representative()]).astype("float32"))
            network = _shrunk(flatbuffer)
        job.target.write_bytes(network)
        self.append_metadata(job.target, job.metadata)

    def open(self, path: Path) -> Run:
        """Returns the file as a function of floats, which are quantised and dequantised where it takes integers."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        prepared = None

        def run(images: np.ndarray) -> np.ndarray:
            nonlocal prepared
            if images.shape != prepared:
                interpreter.resize_tensor_input(image["index"], images.shape)
                interpreter.allocate_tensors()
                prepared = images.shape
            interpreter.set_tensor(image["index"], _quantized(images, image))
            interpreter.invoke()
            return _dequantized(interpreter.get_tensor(output["index"]), output)

        return run


def _calibration_images(job: Job) -> Iterator[np.ndarray]:
    for images in job.representative():
        images = images.astype("float32")
        yield images
    if job.form.raw:  # with black and white pixels in it, the range is that of pixels: an integer is the pixel itself
        images.flat[0], images.flat[-1] = 0, 255
        yield images


def _quantized(values: np.ndarray, details: dict) -> np.ndarray:
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _dequantized(values: np.ndarray, details: dict) -> np.ndarray:
    scale, zero = details["quantization"]
    return (values.astype("float32") - zero) * scale if scale else values


def _fit_norms(network: Any, model: keras.Model, images: np.ndarray) -> None:
    """Fits the norms in a flatbuffer of integers to its ranges.

    The converter itself takes ranges from the network whose weights it writes: those of fitted norms would be wider.
    """
    (graph,) = network.subgraphs
    operators = _operators(network, model)
    fit_norms(model, images, {name: _range(graph.tensors[each.outputs[0]]) for name, each in operators.items()})

    tensor_uses = Counter(index for operator in graph.operators for index in operator.inputs)
    buffer_uses = Counter(tensor.buffer for tensor in graph.tensors)

    def replaced(index: int, values: np.ndarray, scale: np.ndarray) -> int:
        """Returns the index of a tensor with other values: the same, unless equal constants share it."""
        tensor, is_shared = graph.tensors[index], tensor_uses[index] > 1
        if is_shared:
            tensor, index = copy.deepcopy(tensor), len(graph.tensors)
            graph.tensors.append(tensor)
        if is_shared or buffer_uses[tensor.buffer] > 1:
            tensor.buffer = len(network.buffers)
            network.buffers.append(type(network.buffers[0])())
        network.buffers[tensor.buffer].data = values.view("uint8")
        tensor.quantization.scale = scale.astype("float32")
        return index

    for norm in fitted_norms(model):
        scale, shift = (weight.ravel().astype("float64") for weight in norm.get_weights())
        x, kernel, bias = operators[norm.name].inputs
        unit_of_x = graph.tensors[x].quantization.scale[0]
        step = np.maximum(np.abs(scale) / 127, np.abs(shift) / unit_of_x / 2**30)  # the bias has 32 bits
        operators[norm.name].inputs = [
            x,
            replaced(kernel, np.rint(scale / step).astype("int8"), step),
            replaced(bias, np.rint(shift / step / unit_of_x).astype("int32"), step * unit_of_x),
        ]


def _operators(network: Any, model: keras.Model) -> dict[str, Any]:
    """Returns the operators of a flatbuffer by the names of the layers that they were: the last of each layer.

    A tensor is named after the operations of TensorFlow that made it, each with its layer, which TensorFlow numbers if
    it was called before. Some are brought to another range after that, for a join.
    """
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    (graph,), norms = network.subgraphs, fitted_norms(model)
    quantize = [i for i, code in enumerate(network.operatorCodes) if code.builtinCode == BuiltinOperator.QUANTIZE]
    for number in ("", r"_\d+$"):
        operators = {}
        for operator in graph.operators:
            if operator.opcodeIndex not in quantize:
                parts = re.split("[/;]", graph.tensors[operator.outputs[0]].name.decode())
                operators |= dict.fromkeys((re.sub(number, "", part) for part in parts), operator)
        if all(norm.name in operators for norm in norms):
            return {layer.name: operators[layer.name] for layer in model.layers if layer.name in operators}
    raise ValueError("LiteRT's converter has left out a norm")


def _range(tensor: Any) -> tuple[float, float]:
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return (-128 - zero) * scale, (127 - zero) * scale


def _shrunk(network: Any) -> bytes:
    """Returns a flatbuffer in few bytes, without the names of its inner tensors.

    The converter stores a scale and a zero per channel for a convolution's weights, and again for its bias: 24 bytes
    per channel, more than half of an eight-bit depthwise network. The runtimes insist on the zeros, all of them 0, but
    equal vectors of a flatbuffer can share one place.
    """
    import flatbuffers

    places = {}

    class SharingBuilder(flatbuffers.Builder):
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            key = x.dtype.str, x.tobytes()
            if key not in places:
                places[key] = super().CreateNumpyVector(x)
            return places[key]

    for graph in network.subgraphs:
        for i in {*range(len(graph.tensors))} - {*graph.inputs, *graph.outputs}:
            graph.tensors[i].name = None
    builder = SharingBuilder(1024)
    builder.Finish(network.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
