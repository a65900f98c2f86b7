"""OpenVINO's .xml files, with the weights in a .bin file beside: converted from ONNX, run by OpenVINO."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import keras

from keras_mixers.export.format import METADATA, Job, Run
from keras_mixers.export.onnx import Onnx, convert


class OpenVino(Onnx):
    """An .xml file and a .bin file."""

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

        # On some CPUs it would compute in bfloat16 by default.
        network = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: network(images)[0]

    def read_metadata(self, path: Path) -> str:
        return ElementTree.parse(path).find(f".//rt_info/{METADATA}").get("value")
