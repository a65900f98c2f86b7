"""The layers of the papers in NumPy, in float64 and channels last, to be read beside the equations.

ConvMixer Eqs. 1-3 and SplitMixer Eqs. 1-4, section 2.2 and appendices B, C and G; MLP-Mixer Eq. 1, ResMLP Eqs. 1-3 and
gMLP section 2. Nothing here is fast: a convolution is a loop over taps or positions, and a channel mixing a loop over
segments.

Every mixer returns its output and its norms as they are after the call: a norm is a dict of arrays, `gamma` and `beta`
and, for batch normalisation, `moving_mean` and `moving_variance`, which training moves.
"""

import math

import numpy as np

EPSILON = 1e-5
MOMENTUM = 0.9  # of Keras: the weight of the old value


# sigma and N


def gelu(x):
    """Give x * Phi(x) with Phi the distribution function of the standard normal: the exact GELU."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def relu(x):
    return np.maximum(x, 0)


def identity(x):
    return x


def silu(x):
    return x / (1 + np.exp(-x))


ACTIVATIONS = {"gelu": gelu, "relu": relu, "silu": silu, None: identity, "linear": identity}


def batch_norm(x, norm, training, epsilon=EPSILON):
    """Normalise each channel over the batch and all positions; both variances are the biased ones."""
    if training:
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        moved = {
            "moving_mean": MOMENTUM * norm["moving_mean"] + (1 - MOMENTUM) * mean,
            "moving_variance": MOMENTUM * norm["moving_variance"] + (1 - MOMENTUM) * variance,
        }
    else:
        mean, variance = norm["moving_mean"], norm["moving_variance"]
        moved = {}
    return norm["gamma"] * (x - mean) / np.sqrt(variance + epsilon) + norm["beta"], norm | moved


def layer_norm(x, norm, training, epsilon=EPSILON):
    """Normalise each position of each sample over its channels."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return norm["gamma"] * (x - mean) / np.sqrt(variance + epsilon) + norm["beta"], norm


def affine(x, norm, training, epsilon=EPSILON):
    """Scale and shift each channel (ResMLP Eq. 1)."""
    return x * norm["gamma"] + norm["beta"], norm


def no_norm(x, norm, training, epsilon=EPSILON):
    return x, norm


NORMALIZATIONS = {"batch": batch_norm, "layer": layer_norm, "affine": affine, None: no_norm}


def activate_and_normalize(x, norm, activation, normalization, training):
    """N(sigma{x}): the activation comes first, in every equation of both papers."""
    return NORMALIZATIONS[normalization](ACTIVATIONS[activation](x), norm, training)


# Convolutions


def same_padding(size, kernel_size, stride=1):
    """Give the zeros before and after that leave ceil(size / stride) positions; the odd one goes after."""
    positions = -(-size // stride)
    total = max((positions - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def convolve(image, kernel, bias, stride, padding):
    """Convolve (N, H, W, in) with a square kernel (p, p, in, out): one product for each position."""
    patch, _, _, dim = kernel.shape
    if padding == "same":
        pads = [same_padding(size, patch, stride) for size in image.shape[1:3]]
        image = np.pad(image, [(0, 0), *pads, (0, 0)])
    rows, columns = [(size - patch) // stride + 1 for size in image.shape[1:3]]
    output = np.zeros((len(image), rows, columns, dim))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            seen = image[:, top : top + patch, left : left + patch]
            output[:, row, column] = np.einsum("nabi,abio->no", seen, kernel) + bias
    return output


def pad_for_taps(x, kernel):
    """Add (k - 1) // 2 zeros before and k // 2 after on each axis, so that k taps leave the size as it is."""
    height, width = kernel.shape[:2]
    return np.pad(x, [(0, 0), ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2), (0, 0)])


def depthwise(x, kernel):
    """Convolve each channel of (N, H, W, C) with its own (kh, kw) taps of a (kh, kw, C, 1) kernel, same padding."""
    rows, columns = x.shape[1:3]
    padded = pad_for_taps(x, kernel)
    output = np.zeros(x.shape)
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            output += padded[:, a : a + rows, b : b + columns] * kernel[a, b, :, 0]
    return output


def depthwise_gradients(x, kernel, upstream):
    """Give the gradients of sum(upstream * depthwise(x, kernel)) for x and for kernel."""
    rows, columns = x.shape[1:3]
    padded = pad_for_taps(x, kernel)
    for_padded, for_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            for_padded[:, a : a + rows, b : b + columns] += upstream * kernel[a, b, :, 0]
            for_kernel[a, b, :, 0] = np.sum(upstream * padded[:, a : a + rows, b : b + columns], axis=(0, 1, 2))
    top, left = (kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2
    return for_padded[:, top : top + rows, left : left + columns], for_kernel


# Patch embedding: Eq. 1 of both papers


def patch_embed(
    image, kernel, bias, norm, *, stride, padding="valid", activation="gelu", normalization="batch", training=False
):
    z, norm = activate_and_normalize(
        convolve(image, kernel, bias, stride, padding), norm, activation, normalization, training
    )
    return z, [norm]


# Spatial mixing


def spatial_mixer_2d(x, kernel, bias, norm, *, activation="gelu", normalization="batch", residual=True, training=False):
    """ConvMixer Eq. 2."""
    z, norm = activate_and_normalize(depthwise(x, kernel) + bias, norm, activation, normalization, training)
    return z + x * residual, [norm]


def spatial_mixer_1d(
    x, width, height, norms, *, activation="gelu", normalization="batch", residual=True, training=False
):
    """SplitMixer Eqs. 2 and 3; `width` and `height` are (kernel, bias), and one residual spans both convolutions."""
    z, first = activate_and_normalize(depthwise(x, width[0]) + width[1], norms[0], activation, normalization, training)
    z, second = activate_and_normalize(
        depthwise(z, height[0]) + height[1], norms[1], activation, normalization, training
    )
    return z + x * residual, [first, second]


# Channel mixing


def pointwise(x, kernel, bias):
    """A 1 x 1 convolution with a kernel (in, out)."""
    return np.einsum("nhwi,io->nhwo", x, kernel) + bias


def channel_mixer(x, kernel, bias, norm, *, activation="gelu", normalization="batch", residual=False, training=False):
    """ConvMixer Eq. 3."""
    z, norm = activate_and_normalize(pointwise(x, kernel, bias), norm, activation, normalization, training)
    return z + x * residual, [norm]


def segment_bounds(channels, segments, ratio=None):
    """Give (start, stop) of each segment.

    Without a ratio they tile the channels and the last takes the remainder. With one, each is int(channels * ratio)
    wide, the first starts at the first channel and the last ends at the last.
    """
    if ratio is None:
        starts = [j * (channels // segments) for j in range(segments)]
        return list(zip(starts, [*starts[1:], channels], strict=True))
    width = int(channels * ratio)
    starts = [j * (channels - width) // (segments - 1) for j in range(segments)] if segments > 1 else [0]
    return [(start, start + width) for start in starts]


def mix_segments(x, bounds, kernels, biases):
    """Mix the channels within one segment after the other; a segment sees what those before it wrote."""
    x = x.copy()
    for (start, stop), kernel, bias in zip(bounds, kernels, biases, strict=True):
        x[..., start:stop] = pointwise(x[..., start:stop], kernel, bias)
    return x


def channel_shuffle(x, groups):
    """Move channel g * (C / groups) + c to c * groups + g."""
    members = x.shape[-1] // groups
    shuffled = np.empty_like(x)
    for group in range(groups):
        for member in range(members):
            shuffled[..., member * groups + group] = x[..., group * members + member]
    return shuffled


def channel_split_mixer(
    x,
    kernels,
    biases,
    norm,
    *,
    segments,
    ratio=None,
    block=None,
    shuffle=False,
    activation="gelu",
    normalization="batch",
    residual=False,
    training=False,
):
    """SplitMixer Eq. 4 with the pointwise convolution on segments (section 2.2, appendix G).

    `kernels` and `biases` hold one entry for each segment that is mixed; shared parameters are the same entry repeated.
    """
    bounds = segment_bounds(x.shape[-1], segments, ratio)
    if block is not None:
        bounds = [bounds[block % segments]]
    z = mix_segments(x, bounds, kernels, biases)
    if shuffle:
        z = channel_shuffle(z, segments)
    z, norm = activate_and_normalize(z, norm, activation, normalization, training)
    return z + x * residual, [norm]


def channel_stride_mixer(
    x, kernel, bias, norm, *, stride, activation="gelu", normalization="batch", residual=False, training=False
):
    """SplitMixer Eq. 4 with a 3D convolution along the channels (appendix C); `kernel` is (length, filters)."""
    length, filters = kernel.shape
    positions = (x.shape[-1] - length) // stride + 1
    z = np.empty(x.shape)
    for f in range(filters):
        for j in range(positions):
            z[..., f * positions + j] = x[..., j * stride : j * stride + length] @ kernel[:, f] + bias[f]
    z, norm = activate_and_normalize(z, norm, activation, normalization, training)
    return z + x * residual, [norm]


# Pre-norm mixers. A branch takes the normalised feature maps, and its output, scaled, is added to the input.

PRE_NORM_EPSILON = 1e-6


def pre_norm(x, norm, branch, *, normalization, scale=None, residual=True, training=False):
    """z + s * F(N(z))."""
    y, norm = NORMALIZATIONS[normalization](x, norm, training, epsilon=PRE_NORM_EPSILON)
    y = branch(y)
    return (y if scale is None else y * scale) + x * residual, [norm]


def over_positions(x, kernel, bias):
    """Give (batch, outputs, channels): in each channel, products over all positions with a kernel (in, out)."""
    height, width = x.shape[1:3]
    return np.einsum("nhwc,hwu->nuc", x, kernel.reshape(height, width, -1)) + bias[:, None]


def onto_grid(hidden, kernel, bias, shape):
    """Give feature maps of this shape: products over the hidden units of each channel, one for each position."""
    return (np.einsum("nuc,up->npc", hidden, kernel) + bias[:, None]).reshape(shape)


def activate(x, activation, gated, axis):
    """sigma(x), or one half times sigma of the other."""
    if not gated:
        return ACTIVATIONS[activation](x)
    values, gates = np.split(x, 2, axis=axis)
    return values * ACTIVATIONS[activation](gates)


def token_mlp(x, first, second, norm, *, activation="gelu", normalization="layer", gated=False, **options):
    """MLP-Mixer Eq. 1, the first half; `first` and `second` are (kernel, bias)."""

    def branch(y):
        return onto_grid(activate(over_positions(y, *first), activation, gated, axis=1), *second, y.shape)

    return pre_norm(x, norm, branch, normalization=normalization, **options)


def token_linear(x, kernel, bias, norm, *, activation=None, normalization="affine", **options):
    """ResMLP Eq. 2."""

    def branch(y):
        return over_positions(y, kernel, bias).reshape(y.shape)

    return pre_norm(x, norm, branch, normalization=normalization, **options)


def channel_mlp(x, first, second, norm, *, activation="gelu", normalization="layer", gated=False, **options):
    """MLP-Mixer Eq. 1, the second half; ResMLP Eq. 3."""

    def branch(y):
        return pointwise(activate(pointwise(y, *first), activation, gated, axis=-1), *second)

    return pre_norm(x, norm, branch, normalization=normalization, **options)


def spatial_gating_mlp(x, first, gate, second, norm, gate_norm, *, activation="gelu", normalization="layer", **options):
    """gMLP section 2: the second half of the hidden units, mixed over the positions, gates the first."""

    def branch(y):
        u, v = np.split(ACTIVATIONS[activation](pointwise(y, *first)), 2, axis=-1)
        v, _ = layer_norm(v, gate_norm, False, epsilon=1e-5)
        return pointwise(u * over_positions(v, *gate).reshape(v.shape), *second)

    z, norms = pre_norm(x, norm, branch, normalization=normalization, **options)
    return z, [*norms, gate_norm]
