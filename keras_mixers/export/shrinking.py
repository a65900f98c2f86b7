"""A smaller file of the same eight-bit LiteRT network.

The converter gives each channel of a convolution a scale and a zero of its own, for its weights and again for its bias:
24 bytes a channel, more than half of the file of a depthwise network. The zeros are all 0, and the runtimes want every
one of them, but in a flatbuffer equal vectors can lie in one place.
"""

import flatbuffers
import numpy as np
from tensorflow.lite.tools import flatbuffer_utils


def shrink(network: bytes) -> bytes:
    """Returns the same network in fewer bytes, without the names of its inner tensors."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(network))
    for graph in model.subgraphs:
        for i in {*range(len(graph.tensors))} - {*graph.inputs, *graph.outputs}:
            graph.tensors[i].name = None
    builder = _SharingBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    """Writes each vector of numbers once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.places: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = x.dtype.str, x.tobytes()
        if key not in self.places:
            self.places[key] = super().CreateNumpyVector(x)
        return self.places[key]
