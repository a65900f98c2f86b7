"""A smaller file of the same LiteRT network.

The converter gives every eight-bit convolution a scale and a zero for each channel, of its weights and again of its
bias: 24 bytes a channel, more than half of the file of a depthwise network. The zeros are all 0, and the runtimes want
every one of them; but in a flatbuffer equal vectors can lie in one place.
"""

from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.tools import flatbuffer_utils


class _SharingBuilder(flatbuffers.Builder):
    """Writes each vector of numbers once."""

    def __init__(self) -> None:
        super().__init__(1024)
        self.places: dict[tuple[str, bytes], Any] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> Any:
        key = x.dtype.str, x.tobytes()
        if key not in self.places:
            self.places[key] = super().CreateNumpyVector(x)
        return self.places[key]


def shrink(network: bytes) -> bytes:
    """Returns the same network without the names of its inner tensors, and with each vector of numbers once."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(network))
    for graph in model.subgraphs:
        for i in {*range(len(graph.tensors))} - {*graph.inputs, *graph.outputs}:
            graph.tensors[i].name = None
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
