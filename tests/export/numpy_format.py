"""A format as a user would add it: layers and weights in an .npz file, run by NumPy alone. docs/export.md shows it."""

import json
from dataclasses import replace

import keras
import numpy as np
import reference

from keras_mixers.export import Format, Quantization


class NumpyFile(Format):
    """An .npz file of a network's layers, in order, and their weights."""

    title = "NumPy"
    suffix = ".npz"
    quantizations = {"float16": Quantization(tolerance=1e-2)}

    def form(self, form, quantization):
        return replace(form, folded=False)  # norms stay layers, which is all that `open` knows

    def write(self, model, job):
        places, layers, weights = {}, [], {}
        for i, layer in enumerate(model.layers):
            sources = [places[id(tensor)] for tensor in keras.tree.flatten(layer.input)] if i else []
            places[id(layer.output)] = i
            layers.append((type(layer).__name__, sources))
            for j, weight in enumerate(layer.get_weights()):
                weights[f"{i}_{j}"] = weight.astype(job.quantization or "float32")
        np.savez(job.target, layers=json.dumps(layers), **weights)
        self.append_metadata(job.target, job.metadata)

    def open(self, path):
        file = np.load(path)
        weights = {name: file[name] for name in file.files if name[0].isdigit()}

        def run(images):
            outputs = []
            for i, (kind, sources) in enumerate(json.loads(str(file["layers"]))):
                own = [weights[f"{i}_{j}"] for j in range(sum(name.startswith(f"{i}_") for name in weights))]
                outputs.append(OPERATIONS[kind](*[outputs[source] for source in sources] or [images], *own))
            return outputs[-1]

        return run


OPERATIONS = {
    "InputLayer": lambda x: x,
    "Conv2D": lambda x, kernel, bias: reference.convolve(x, kernel, bias, len(kernel), "valid"),
    "DepthwiseConv2D": lambda x, kernel, bias: reference.depthwise(x, kernel) + bias,
    "Activation": reference.gelu,
    "BatchNormalization": lambda x, gamma, beta, mean, variance: (x - mean) * gamma / np.sqrt(variance + 1e-3) + beta,
    "Add": np.add,
    "GlobalAveragePooling2D": lambda x: x.mean((1, 2)),
    "Dense": lambda x, kernel, bias: x @ kernel + bias,
}
