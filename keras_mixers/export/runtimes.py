"""Exported files, opened by their own runtimes: each becomes a function of arrays."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def open_litert(path: Path) -> Run:
    """Opens a .tflite file with ai-edge-litert; its integers are turned into the numbers that they stand for."""
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
        interpreter.set_tensor(image["index"], _integers(images, image))
        interpreter.invoke()
        return _numbers(interpreter.get_tensor(output["index"]), output)

    return run


def _integers(values: np.ndarray, details: dict) -> np.ndarray:
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _numbers(values: np.ndarray, details: dict) -> np.ndarray:
    scale, zero = details["quantization"]
    return (values.astype("float32") - zero) * scale if scale else values


def open_onnx(path: Path) -> Run:
    """Opens an .onnx file with onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def open_openvino(path: Path) -> Run:
    """Opens an .xml file with OpenVINO, in float32: on some CPUs it would compute in bfloat16."""
    import openvino

    network = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: network(images)[0]


def run_in_batches(run: Run, images: np.ndarray, batch_size: int | None) -> np.ndarray:
    """Returns the outputs for all images; a file of a fixed batch size gets the last batch filled up."""
    size = batch_size or 64
    outputs = []
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        missing = 0 if batch_size is None else size - len(batch)
        outputs.append(run(np.concatenate([batch, batch[:1].repeat(missing, 0)]))[: len(batch)])
    return np.concatenate(outputs)


def latency(run: Run, images: np.ndarray, seconds: float = 1.0) -> float:
    """Returns the median of the seconds that a call takes, measured for about as long as said."""
    for _ in range(3):
        run(images)
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
