"""What PyTorch writes: its own programs, and ONNX, of which OpenVINO's are made."""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from keras_mixers.export.job import Job
from keras_mixers.export.metadata import NAME
from keras_mixers.inference.images import is_channels_first

OPSET = 20  # the first one with GELU


class _Inference(torch.nn.Module):
    """A Keras model as a function of images alone."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image, training=False)


@contextlib.contextmanager
def _symbolic_sizes() -> Iterator[None]:
    """Keeps sizes symbolic where Keras checks shapes: before 3.14 it makes integers of them, which fixes the batch."""
    if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 14):
        yield
        return
    from keras.src import backend

    def symbolic(shape: Any) -> tuple[int | None, ...]:
        return standardize(tuple(None if isinstance(size, torch.SymInt) else size for size in shape))

    standardize = backend.standardize_shape
    backend.standardize_shape = symbolic
    try:
        yield
    finally:
        backend.standardize_shape = standardize


def _program(model: keras.Model, job: Job) -> torch.export.ExportedProgram:
    # A size that may vary must not be 1 in the example: PyTorch would take it for fixed.
    example = [job.example_size if axis and size is None else size or 2 for axis, size in enumerate(job.input_shape)]
    varying = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(job.input_shape) if size is None}
    image = torch.zeros(example, dtype=getattr(torch, model.inputs[0].dtype))
    with warnings.catch_warnings(), torch.no_grad(), _symbolic_sizes():
        warnings.simplefilter("ignore")
        program = torch.export.export(_Inference(model).eval(), (image,), dynamic_shapes={"image": varying})
    for node in program.graph.nodes:  # where in our files it comes from: of no use to others, and larger than a network
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(note, None)
    return program


def write_torch(model: keras.Model, job: Job) -> None:
    """Writes a .pt2 file."""
    torch.export.save(_program(model, job), job.target, extra_files={NAME: json.dumps(job.metadata)})


def open_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the program as a function of arrays."""
    program = torch.export.load(path).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return program(torch.from_numpy(images)).numpy()

    return run


def write_onnx(model: keras.Model, job: Job) -> None:
    """Writes an .onnx file, of eight-bit numbers if these are asked for."""
    plain = _onnx(model, job)
    if job.quantization is not None:
        _quantize(plain, job)
        plain = _load(job.target)
    _save(plain, job)


def _onnx(model: keras.Model, job: Job) -> Any:
    axes = ("batch", "channels", "height", "width") if is_channels_first(model) else ("batch", "height", "width")
    names = {axis: name for axis, name in enumerate(axes) if job.input_shape[axis] is None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            _program(model, job), input_names=["image"], output_names=[job.output], opset_version=OPSET, verbose=False,
            dynamic_shapes={"image": names},
        )  # fmt: skip
    return exported.model_proto


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _save(proto: Any, job: Job) -> None:
    import onnx

    onnx.helper.set_model_props(proto, {NAME: json.dumps(job.metadata)})
    onnx.save(proto, job.target)


def _quantize(proto: Any, job: Job) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain = job.folder / "plain.onnx"
    onnx.save(proto, plain)
    quant_pre_process(plain, plain)
    if job.quantization == "dynamic":
        return quantize_dynamic(plain, job.target, per_channel=True, weight_type=QuantType.QInt8)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = job.representative()

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self.batches, None)
            return None if images is None else {"image": images}

    return quantize_static(plain, job.target, Reader(), per_channel=True)


def write_openvino(model: keras.Model, job: Job) -> None:
    """Writes an .xml file and, beside it, the weights in a .bin file."""
    import onnx
    import openvino

    path = job.folder / "plain.onnx"
    onnx.save(_onnx(model, job), path)
    network = openvino.convert_model(path)
    network.set_rt_info(json.dumps(job.metadata), [NAME])
    openvino.save_model(network, job.target, compress_to_fp16=False)
