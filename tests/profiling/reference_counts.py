"""What the NumPy reference of a network multiplies, counted while it runs."""

import math

import keras
import numpy as np
import reference

from keras_mixers import layers
from keras_mixers.layers.normalization import Affine


class CountedKernel(np.ndarray):
    """A kernel that notes in `counts` how many products each use of it takes; the results are plain arrays."""

    def __new__(cls, values, counts):
        kernel = np.asarray(values, "float64").view(cls)
        kernel.counts = counts
        return kernel

    def __array_finalize__(self, source):
        self.counts = getattr(source, "counts", None)

    def __array_ufunc__(self, ufunc, method, *operands, **options):
        assert ufunc in (np.multiply, np.matmul), f"nobody counts {ufunc}"
        assert method == "__call__"
        left, right = map(np.asarray, operands)
        result = ufunc(left, right, **options)
        self.counts.append(result.size * (left.shape[-1] if ufunc is np.matmul else 1))
        return result

    def __array_function__(self, function, types, arguments, options):
        assert function is np.einsum, f"nobody counts {function}"
        subscripts, *operands = arguments
        operands = [np.asarray(operand) for operand in operands]
        lengths = {}
        for labels, operand in zip(subscripts.split("->")[0].split(","), operands, strict=True):
            lengths.update(zip(labels, operand.shape, strict=True))
        self.counts.append(math.prod(lengths.values()))
        return np.einsum(subscripts, *operands, **options)


def array(weight):
    return np.asarray(keras.ops.convert_to_numpy(weight), "float64")


def norm_of(norm):
    return {weight.name: array(weight) for weight in norm.weights} if norm is not None else {}


def run(model, image, monkeypatch):
    """Run the reference of a channels-last model on a batch.

    Give its output, how many products its kernels took, and how many elements its batch norms put out.
    """
    products, normalized = [], []
    batch_norm = reference.NORMALIZATIONS["batch"]

    def counted_norm(x, norm, training, **options):
        normalized.append(x.size)
        return batch_norm(x, norm, training, **options)

    def kernel(convolution):
        return CountedKernel(array(convolution.kernel), products)

    def convolution(layer):
        return kernel(layer), array(layer.bias)

    x = np.asarray(image, "float64")
    with monkeypatch.context() as patch:
        patch.setitem(reference.NORMALIZATIONS, "batch", counted_norm)
        for layer in model.layers:
            x = call(layer, x, convolution)
    return x, sum(products), sum(normalized)


def call(layer, x, convolution):
    if isinstance(layer, keras.layers.InputLayer):
        return x
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return x.mean(axis=(1, 2))
    if isinstance(layer, keras.layers.Dense):
        kernel, bias = convolution(layer)
        return x @ kernel + bias
    if layer.name == "norm":  # before the mean
        kind = "affine" if isinstance(layer, Affine) else "layer"
        return reference.NORMALIZATIONS[kind](x, norm_of(layer), False, epsilon=reference.PRE_NORM_EPSILON)[0]
    options = {"activation": keras.activations.serialize(layer.activation), "normalization": layer.normalization}
    if isinstance(layer, layers.PatchEmbed):
        options |= {"stride": layer.stride, "padding": layer.padding}
        return reference.patch_embed(x, *convolution(layer.convolution), norm_of(layer.norm), **options)[0]
    options["residual"] = layer.residual
    if isinstance(layer, layers.SpatialMixer2D):
        return reference.spatial_mixer_2d(x, *convolution(layer.convolution), norm_of(layer.norm), **options)[0]
    if isinstance(layer, layers.SpatialMixer1D):
        width, height = convolution(layer.width_convolution), convolution(layer.height_convolution)
        norms = [norm_of(layer.width_norm), norm_of(layer.height_norm)]
        return reference.spatial_mixer_1d(x, width, height, norms, **options)[0]
    norm = norm_of(layer.norm)
    if isinstance(layer, layers.PreNormMixer):
        options["scale"] = None if layer.scale is None else array(layer.scale)
        return pre_norm(layer, x, norm, convolution, options)
    if isinstance(layer, layers.ChannelMixer):
        return reference.channel_mixer(x, *convolution(layer.pointwise), norm, **options)[0]
    if isinstance(layer, layers.ChannelStrideMixer):
        options["stride"] = layer.stride
        return reference.channel_stride_mixer(x, *convolution(layer.pointwise), norm, **options)[0]
    kernels, biases = zip(*map(convolution, layer.pointwise), strict=True)
    if layer.shared:
        mixed = 1 if layer.block is not None else layer.segments
        kernels, biases = kernels * mixed, biases * mixed
    options |= {name: getattr(layer, name) for name in ("segments", "ratio", "block", "shuffle")}
    return reference.channel_split_mixer(x, kernels, biases, norm, **options)[0]


def pre_norm(layer, x, norm, convolution, options):
    if isinstance(layer, layers.TokenLinear):
        return reference.token_linear(x, *convolution(layer.product), norm, **options)[0]
    first, second = convolution(layer.hidden_dense), convolution(layer.output_dense)
    if isinstance(layer, layers.SpatialGatingMLP):
        gate, gate_norm = convolution(layer.gate_dense), norm_of(layer.gate_norm)
        return reference.spatial_gating_mlp(x, first, gate, second, norm, gate_norm, **options)[0]
    mlp = reference.token_mlp if isinstance(layer, layers.TokenMLP) else reference.channel_mlp
    return mlp(x, first, second, norm, gated=layer.gated, **options)[0]
