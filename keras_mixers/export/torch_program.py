"""PyTorch's programs, .pt2 files: traced by torch.export, run by PyTorch, and the source of ONNX files."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from keras_mixers.export.folding import Form
from keras_mixers.export.format import METADATA, Format, Job, Run


class TorchProgram(Format):
    """A .pt2 file, a program of `torch.export`."""

    title = "PyTorch"
    suffix = ".pt2"
    backend = "torch"
    packages = ("torch",)
    extra = "torch"

    def form(self, form: Form, quantization: str | None) -> Form:
        return replace(form, data_format="channels_first")

    def write(self, model: keras.Model, job: Job) -> None:
        import torch

        torch.export.save(trace(model, job), job.target, extra_files={METADATA: json.dumps(job.metadata)})

    def open(self, path: Path) -> Run:
        import torch

        program = torch.export.load(path).module()

        def run(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return program(torch.from_numpy(images)).numpy()

        return run


def trace(model: keras.Model, job: Job) -> Any:
    """Returns the network as a `torch.export.ExportedProgram` of one argument, `image`."""
    import torch

    class Inference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model(image, training=False)

    varying = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(job.input_shape(model)) if size is None}
    # Two images if their number may vary: PyTorch would treat a size of 1 as fixed.
    images = job.images()
    example = torch.from_numpy(np.resize(images, (job.batch_size or 2, *images.shape[1:])))
    with torch.no_grad(), _symbolic_sizes():
        program = torch.export.export(Inference().eval(), (example,), dynamic_shapes={"image": varying})
    for node in program.graph.nodes:  # places in our source files, useless to others and larger than a network
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(note, None)
        # Keras's take squeezes the axis that it took from, which ONNX refuses if it took more than one.
        if node.target == torch.ops.aten.squeeze.dim and node.meta["val"].shape == node.args[0].meta["val"].shape:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _symbolic_sizes() -> contextlib.AbstractContextManager:
    """Keeps sizes symbolic where Keras checks shapes: before 3.14 it casts them to integers, which fixes the batch."""
    if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 14):
        return contextlib.nullcontext()
    import torch
    from keras.src import backend

    def symbolic(shape: Any) -> tuple[int | None, ...]:
        return standardize(tuple(None if isinstance(size, torch.SymInt) else size for size in shape))

    standardize = backend.standardize_shape
    return mock.patch.object(backend, "standardize_shape", symbolic)
