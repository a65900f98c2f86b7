"""ONNX's .onnx files, written by PyTorch, quantised and run by ONNX Runtime; and OpenVINO's, converted from them."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.export.folding import Form
from keras_mixers.export.format import METADATA, Job, Quantization, Run
from keras_mixers.export.integer_norms import fit_norms
from keras_mixers.export.torch_program import TorchProgram, trace
from keras_mixers.inference.images import is_channels_first

OPSET = 20  # the first one with GELU


class Onnx(TorchProgram):
    """An .onnx file with the input `image`."""

    title = "ONNX"
    suffix = ".onnx"
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    quantizations = {"dynamic": Quantization(0.1), "int8": Quantization(0.3, calibrated=True)}

    def form(self, form: Form, quantization: str | None) -> Form:
        form = super().form(form, quantization)
        if not form.folded or quantization is None:
            return form
        # int8 has one range per tensor: channels stay on the scale of the norm's output. A multiply-add becomes a
        # convolution, whose weights have a scale per channel and which rounds once.
        return replace(form, units=False, multiply_add="depthwise" if quantization == "int8" else form.multiply_add)

    def write(self, model: keras.Model, job: Job) -> None:
        import onnx

        network = convert(model, job)
        if job.quantization is not None:
            network = _quantized(network, model, job)
        onnx.helper.set_model_props(network, {METADATA: json.dumps(job.metadata)})
        onnx.save(network, job.target)

    def open(self, path: Path) -> Run:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"image": images})[0]

    def read_metadata(self, path: Path) -> str:
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}[METADATA]


class OpenVino(Onnx):
    """An .xml file, and a .bin file with the weights: converted from ONNX, run by OpenVINO."""

    title = "OpenVINO"
    suffix = ".xml"
    companions = (".bin",)
    packages = (*Onnx.packages, "openvino")
    extra = "openvino"
    quantizations = {}

    def write(self, model: keras.Model, job: Job) -> None:
        import onnx
        import openvino

        path = job.folder / "plain.onnx"
        onnx.save(convert(model, job), path)
        network = openvino.convert_model(path)
        network.set_rt_info(json.dumps(job.metadata), [METADATA])
        openvino.save_model(network, job.target, compress_to_fp16=False)

    def open(self, path: Path) -> Run:
        import openvino

        # Its default on some CPUs is bfloat16.
        network = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: network(images)[0]

    def read_metadata(self, path: Path) -> str:
        return ElementTree.parse(path).find(f".//rt_info/{METADATA}").get("value")


def convert(model: keras.Model, job: Job) -> Any:
    """Returns the network as an `onnx.ModelProto`."""
    import torch

    axes = ("batch", "channels", "height", "width") if is_channels_first(model) else ("batch", "height", "width")
    names = {axis: name for axis, name in enumerate(axes) if job.input_shape(model)[axis] is None}
    exported = torch.onnx.export(
        trace(model, job), input_names=["image"], output_names=[job.output], opset_version=OPSET, verbose=False,
        dynamic_shapes={"image": names},
    )  # fmt: skip
    return exported.model_proto


def _quantized(network: Any, model: keras.Model, job: Job) -> Any:
    """Returns `model`, written out as `network`, with weights of eight bits, and feature maps too for int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    plain, quantized = job.folder / "plain.onnx", job.folder / "quantized.onnx"
    _save_prepared(network, plain)
    # Signed weights overflow on x86 CPUs without VNNI, which sum two products in 16 bits; unsigned ones, with a zero of
    # 128, are computed exactly on every CPU.
    weights = {"per_channel": True, "weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": True}}
    if job.quantization == "dynamic":
        # Depthwise convolutions have few weights, and would round what they take.
        depthwise = [
            node.name for node in onnx.load(plain).graph.node
            if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
        ]  # fmt: skip
        quantize_dynamic(plain, quantized, nodes_to_exclude=depthwise, **weights)
    else:
        if job.form.folded:
            ranges = _ranges(plain, job)
            fit_norms(model, np.concatenate([*job.representative()]))
            _save_prepared(convert(model, job), plain)
            weights["extra_options"]["TensorQuantOverrides"] = ranges | _kernel_ranges(plain)
        quantize_static(plain, quantized, _reader(job), activation_type=QuantType.QUInt8, **weights)
    return onnx.load(quantized)


def _save_prepared(network: Any, path: Path) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    onnx.save(network, path)
    quant_pre_process(path, path)


def _ranges(path: Path, job: Job) -> dict[str, list[dict[str, np.ndarray]]]:
    """Returns the range of each tensor, as ONNX Runtime takes it, of a network whose norms are not yet fitted."""
    from onnxruntime.quantization.calibrate import create_calibrator

    calibrator = create_calibrator(path, augmented_model_path=str(job.folder / "calibrated.onnx"))
    calibrator.collect_data(_reader(job))
    ranges = {name: data.range_value for name, data in calibrator.compute_data().items()}
    return {name: [{"rmin": low, "rmax": high}] for name, (low, high) in ranges.items()}


def _kernel_ranges(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the range of each channel of each convolution's kernel, as ONNX Runtime takes it.

    Its own range for 255 steps around 128 leaves out half a step: all of a multiply-add's scales would be 0.4 % off.
    """
    import onnx

    graph = onnx.load(path).graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    ranges = {}
    for initializer in graph.initializer:
        if initializer.name in kernels:
            kernel = onnx.numpy_helper.to_array(initializer)
            largest = np.abs(kernel).max((1, 2, 3)) * np.float32(255 / 254)
            ranges[initializer.name] = [{"axis": 0, "rmin": -each, "rmax": each} for each in largest]
    return ranges


def _reader(job: Job) -> Any:
    """Returns what ONNX Runtime reads the representative images from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = job.representative()

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self.batches, None)
            return None if images is None else {"image": images}

    return Reader()
