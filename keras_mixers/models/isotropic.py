"""The only place where a network is assembled: patch embedding, blocks of two mixers, mean, head."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypedDict

import keras

from keras_mixers.layers import NormalizePixels, PatchEmbed, PreNormMixer
from keras_mixers.layers.mixing_layer import convolution_initializers
from keras_mixers.layers.normalization import NORMALIZATIONS, make_norm
from keras_mixers.layers.validation import (
    check_choice,
    check_data_format,
    check_positive_int,
    check_rate,
    did_you_mean,
)
from keras_mixers.models.image_spec import ImageSpec
from keras_mixers.models.network import Network
from keras_mixers.weights import load_weights

# Makes the mixer of block i from i and the keyword arguments that all layers of a network share.
MixerFactory = Callable[..., keras.layers.Layer]

RESIDUALS = ("spatial", "channel", "both", None)
# The layout of all feature maps, whatever the images': pointwise mixing is then a product of matrices as they lie in
# memory, and depthwise convolutions and batch norms are at least as fast on all three backends.
INTERNAL_FORMAT = "channels_last"


class NetworkOptions(TypedDict, total=False):
    """The keyword arguments that every builder passes to `IsotropicMixer`, which explains them."""

    input_shape: Sequence[int | None] | None
    include_top: bool
    pooling: str | None
    classifier_activation: str | Callable | None
    activation: str | Callable | None
    normalization: str | None
    residual: str | None
    patch_stride: int | None
    linear_embedding: bool
    final_normalization: str | None
    drop_path_rate: float
    dropout_rate: float
    initializer: str
    preprocessing: ImageSpec | None
    weights: str | Path | None
    new_head: bool
    data_format: str | None
    dtype: Any
    name: str | None


P = ParamSpec("P")


def builder(family: str) -> Callable[[Callable[P, keras.Model]], Callable[P, keras.Model]]:
    """Makes a builder of a function that takes `dim`, `blocks` or `depth`, and `**options` for `IsotropicMixer`.

    The builder refuses an argument that it does not have, and names the nearest. Its attributes are `family`, what
    figures call its networks, and `blocks_argument`, its name for the number of blocks.
    """

    def decorate(function: Callable[P, keras.Model]) -> Callable[P, keras.Model]:
        own = inspect.signature(function).parameters
        known = [name for name in {**own, **NetworkOptions.__annotations__} if name != "options"]

        @functools.wraps(function)
        def build(*args: P.args, **kwargs: P.kwargs) -> keras.Model:
            for name in kwargs:
                if name not in known:
                    nearest = did_you_mean(name, known, count=1)
                    raise TypeError(f"{function.__name__} has no argument {name!r}; {nearest}")
            return function(*args, **kwargs)

        build.family = family
        build.blocks_argument = "depth" if "depth" in own else "blocks"
        return build

    return decorate


@builder("IsotropicMixer")
def IsotropicMixer(
    dim: int,
    blocks: int,
    patch_size: int = 2,
    num_classes: int = 10,
    *,
    spatial_mixer: MixerFactory | None,
    channel_mixer: MixerFactory | None,
    input_shape: Sequence[int | None] | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | Callable | None = None,
    activation: str | Callable | None = "gelu",
    normalization: str | None = "batch",
    residual: str | None = "spatial",
    patch_stride: int | None = None,
    linear_embedding: bool = False,
    final_normalization: str | None = None,
    drop_path_rate: float = 0.0,
    dropout_rate: float = 0.0,
    initializer: str = "torch",
    preprocessing: ImageSpec | None = None,
    weights: str | Path | None = None,
    new_head: bool = False,
    data_format: str | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    """An isotropic network of any mixers: `PatchEmbed`, then a spatial and a channel mixer a block, mean and head.

    All other builders are this function with their mixers. The papers' ablations are arguments: `residual`,
    `normalization`, `activation`, a mixer left out, or mixers of both papers combined.

    Args:
        dim: number of channels throughout, h.
        blocks: number of blocks.
        patch_size: side of a patch in pixels, p.
        num_classes: number of classes of the head.
        spatial_mixer: makes the spatial mixer of block i, from i and keyword arguments for the layer; None for none.
        channel_mixer: makes the channel mixer of block i, in the same way.
        input_shape: (height, width, channels), with None for a size that may vary; channels first with
            `data_format="channels_first"`. None takes RGB images of any size.
        include_top: whether the mean over all patches and the linear head follow the blocks.
        pooling: without the top, `"avg"` or `"max"` over all patches, or None for the feature maps.
        classifier_activation: activation of the head, such as `"softmax"`; None for logits.
        activation: activation after each convolution.
        normalization: norm of each mixer, after its activation or before its branch as the mixer has it: `"batch"`,
            `"layer"`, `"affine"` or None.
        residual: which mixers have a residual, `"spatial"`, `"channel"`, `"both"` or None.
        patch_stride: pixels from one patch to the next; None for `patch_size`, less for overlapping patches.
        linear_embedding: whether patches are embedded without activation and norm.
        final_normalization: norm of the last block's output, as `normalization`; what pre-norm blocks need.
        drop_path_rate: stochastic depth: probability in [0, 1) that training skips the last block's residual branches.
            It rises linearly from 0 in the first block.
        dropout_rate: dropout in [0, 1) before the head.
        initializer: `"torch"` (the papers') or `"keras"`.
        preprocessing: statistics such as `get_preset(name).pixels`, by which the model itself normalises pixels from 0
            to 255; its `pixels` are these in the size of `input_shape`. None for images that are normalised before.
        weights: None, the path of a .weights.h5 or .keras file, a PyTorch checkpoint (.safetensors, .pt, .pth,
            .pth.tar), or a name on the hub such as `"hf://timm/convmixer_768_32.in1k"`.
        new_head: whether the head stays as it is initialised, to be trained for other classes.
        data_format: layout of the images, and of feature maps as output, `"channels_last"`, `"channels_first"` or None
            for Keras's setting. Inside, the channels are always last.
        dtype: dtype or dtype policy, such as `"mixed_bfloat16"`. The head is computed in the dtype of the weights.
        name: name of the model.

    Returns:
        A functional `keras.Model`. Its output is (batch, num_classes); without the top (batch, dim) if pooled, else
        (batch, height // patch_size, width // patch_size, dim).

    Raises:
        ValueError: if an argument is not as above, or `input_shape` is smaller than a patch.
        OSError: if there is no such file of weights, no such name on the hub, or the download fails.

    Example:
        A ConvMixer whose channels are mixed as in SplitMixer-I ("2D + C" in the SplitMixer paper):

        >>> from keras_mixers import layers
        >>> model = IsotropicMixer(
        ...     256, 8,
        ...     spatial_mixer=lambda block, **shared: layers.SpatialMixer2D(5, **shared),
        ...     channel_mixer=lambda block, **shared: layers.ChannelSplitMixerI(2 / 3, block, **shared),
        ... )
        >>> model.output_shape
        (None, 10)
    """
    dim, blocks = check_positive_int("dim", dim), check_positive_int("blocks", blocks)
    num_classes = check_positive_int("num_classes", num_classes)
    check_choice("residual", residual, RESIDUALS)
    check_choice("pooling", pooling, ("avg", "max", None))
    check_choice("final_normalization", final_normalization, NORMALIZATIONS)
    drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
    dropout_rate = check_rate("dropout_rate", dropout_rate)
    if preprocessing is not None and not isinstance(preprocessing, ImageSpec):
        raise ValueError(
            f"preprocessing must be None or statistics of pixels such as get_preset(NAME).pixels, got "
            f"preprocessing={preprocessing!r}; create_model(NAME, preprocessing=True) takes those of its preset."
        )
    data_format = check_data_format(data_format)
    policy = keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()
    shared = {"activation": activation, "normalization": normalization, "initializer": initializer}
    shared |= {"data_format": INTERNAL_FORMAT, "dtype": policy}

    # Pixels are normalised, and the mean over patches and the head computed, in full precision.
    full = {"dtype": policy.variable_dtype}
    x = image = keras.Input(check_input_shape(input_shape, data_format), name="image")
    if preprocessing is not None:
        x = NormalizePixels(preprocessing.mean, preprocessing.std, data_format, name="normalize_pixels", **full)(x)
    if data_format != INTERNAL_FORMAT:
        x = keras.layers.Permute((2, 3, 1), name="to_channels_last", **full)(x)
    embedding = {**shared, "activation": None, "normalization": None} if linear_embedding else shared
    x = PatchEmbed(dim, patch_size, patch_stride, name="patch_embed", **embedding)(x)
    mixers = {kind: make for kind, make in (("spatial", spatial_mixer), ("channel", channel_mixer)) if make is not None}
    block_names = []
    for i in range(blocks):
        names = []
        for kind, make in mixers.items():
            has_residual = residual in (kind, "both")
            rate = drop_path_rate * i / max(blocks - 1, 1) if has_residual else 0.0
            mixer = make(i, residual=has_residual, drop_path_rate=rate, name=f"block_{i}_{kind}", **shared)
            x = mixer(x)
            names.append(mixer.name)
        block_names.append(tuple(names))

    norm = make_norm(final_normalization, INTERNAL_FORMAT, PreNormMixer.norm_epsilon, dtype=policy, name="norm")
    x = x if norm is None else norm(x)

    if include_top or pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(data_format=INTERNAL_FORMAT, name="pool", **full)(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(data_format=INTERNAL_FORMAT, name="pool", **full)(x)
    elif data_format != INTERNAL_FORMAT:
        x = keras.layers.Permute((3, 1, 2), name="to_channels_first", **full)(x)
    if include_top:
        if dropout_rate:
            x = keras.layers.Dropout(dropout_rate, name="head_dropout", **full)(x)
        head = convolution_initializers(initializer, fan_in=dim)
        x = keras.layers.Dense(num_classes, activation=classifier_activation, name="head", **head, **full)(x)

    model = Network(image, x, name=name or "isotropic_mixer")
    model.block_names = tuple(block_names)
    if preprocessing is not None:
        model.pixels = preprocessing.resized(model.image_sides)
    if weights is not None:
        load_weights(model, weights, new_head=new_head)
    return model


def check_input_shape(input_shape: Sequence[int | None] | None, data_format: str) -> tuple[int | None, ...]:
    """Returns `input_shape`, or RGB images of any size where it is None."""
    channels_last = data_format == "channels_last"
    if input_shape is None:
        return (None, None, 3) if channels_last else (3, None, None)
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    allowed = all(size is None or (isinstance(size, int) and size > 0) for size in shape)
    if len(shape) != 3 or not allowed or shape[-1 if channels_last else 0] is None:
        order = "(height, width, channels)" if channels_last else "(channels, height, width)"
        raise ValueError(
            f"input_shape must be {order}, None for a side that may vary, got input_shape={input_shape!r}."
        )
    return shape
