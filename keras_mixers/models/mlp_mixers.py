"""MLP-Mixer, gMixer, ResMLP and gMLP: networks that mix positions by products over all of them."""

from typing import Any, Unpack

import keras

from keras_mixers.layers import ChannelMLP, SpatialGatingMLP, TokenLinear, TokenMLP
from keras_mixers.layers.validation import check_data_format, check_positive, check_positive_int
from keras_mixers.models.isotropic import IsotropicMixer, MixerFactory, NetworkOptions, builder


@builder("MLP-Mixer")
def MLPMixer(
    dim: int, blocks: int, patch_size: int = 16, num_classes: int = 1000, token_ratio: float = 0.5,
    channel_ratio: float = 4.0, image_size: int = 224, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """MLP-Mixer-dim/blocks: an MLP over the positions of each channel, an MLP over the channels ("MLP-Mixer", Eq. 1).

    Its networks take images of one size, `image_size` or `input_shape`, that of the grid which their products mix.

    Args:
        dim: number of channels throughout, C.
        blocks: number of blocks.
        patch_size: side of a patch in pixels, P.
        num_classes: number of classes.
        token_ratio: hidden units of the MLP over positions, D_S, as a multiple of `dim`.
        channel_ratio: hidden units of the MLP over channels, D_C, as a multiple of `dim`.
        image_size: side of the images in pixels, where `input_shape` is not given.
        **options: the keyword arguments of `IsotropicMixer`. `normalization` is `"layer"`, `residual` `"both"`,
            `initializer` `"keras"`, `linear_embedding` True, and `final_normalization` that of the blocks.

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3) to logits (batch, num_classes).

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> MLPMixer(dim=768, blocks=12).count_params()
        59880472
    """
    return _mlp_mixer(
        "mlp_mixer", dim, blocks, patch_size, num_classes, image_size,
        _mlp(TokenMLP, dim, token_ratio, "token_ratio"), _mlp(ChannelMLP, dim, channel_ratio, "channel_ratio"),
        **options,
    )  # fmt: skip


@builder("gMixer")
def gMixer(
    dim: int, blocks: int, patch_size: int = 16, num_classes: int = 1000, token_ratio: float = 1.0,
    channel_ratio: float = 4.0, image_size: int = 224, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """gMixer-dim/blocks: an MLP-Mixer whose MLPs are gated by SiLU, as published with timm.

    All other arguments, the result and the errors are those of `MLPMixer`; half of the hidden units are gates.

    Example:
        >>> gMixer(dim=384, blocks=24).count_params()
        24721096
    """
    options.setdefault("activation", "silu")
    return _mlp_mixer(
        "gmixer", dim, blocks, patch_size, num_classes, image_size,
        _mlp(TokenMLP, dim, token_ratio, "token_ratio", gated=True),
        _mlp(ChannelMLP, dim, channel_ratio, "channel_ratio", gated=True), **options,
    )  # fmt: skip


@builder("ResMLP")
def ResMLP(
    dim: int, blocks: int, patch_size: int = 16, num_classes: int = 1000, channel_ratio: float = 4.0,
    layer_scale: float | None = None, image_size: int = 224, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """ResMLP-dim/blocks: one product over the positions, an MLP over the channels, no statistics ("ResMLP", Eqs. 2-3).

    Args:
        dim: number of channels throughout.
        blocks: number of blocks.
        patch_size: side of a patch in pixels.
        num_classes: number of classes.
        channel_ratio: hidden units of the MLP over channels, as a multiple of `dim`.
        layer_scale: what the scale per channel at the end of each branch starts with. None takes 1e-4 for up to 18
            blocks, 1e-5 for up to 24, 1e-6 for more.
        image_size: side of the images in pixels, where `input_shape` is not given.
        **options: the keyword arguments of `IsotropicMixer`, as for `MLPMixer`, with `normalization` `"affine"`.

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3) to logits (batch, num_classes).

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> ResMLP(dim=384, blocks=12).count_params()
        15350872
    """
    blocks = check_positive_int("blocks", blocks)
    if layer_scale is None:
        layer_scale = 1e-4 if blocks <= 18 else 1e-5 if blocks <= 24 else 1e-6
    options.setdefault("normalization", "affine")
    return _mlp_mixer(
        "resmlp", dim, blocks, patch_size, num_classes, image_size,
        lambda block, **shared: TokenLinear(layer_scale=layer_scale, **shared),
        _mlp(ChannelMLP, dim, channel_ratio, "channel_ratio", layer_scale=layer_scale), **options,
    )  # fmt: skip


@builder("gMLP")
def gMLP(
    dim: int, blocks: int, patch_size: int = 16, num_classes: int = 1000, channel_ratio: float = 6.0,
    image_size: int = 224, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """gMLP-dim/blocks: one MLP per block, with a spatial gating unit between its products ("Pay Attention to MLPs").

    All other arguments, the result and the errors are those of `MLPMixer`; `channel_ratio` is that of the hidden units,
    one half of which gates the other.

    Example:
        >>> gMLP(dim=256, blocks=30).count_params()
        19422656
    """
    return _mlp_mixer(
        "gmlp", dim, blocks, patch_size, num_classes, image_size,
        None, _mlp(SpatialGatingMLP, dim, channel_ratio, "channel_ratio"), **options,
    )  # fmt: skip


def _mlp(kind: type[keras.layers.Layer], dim: int, ratio: float, name: str, **arguments: Any) -> MixerFactory:
    hidden = int(check_positive(name, ratio) * check_positive_int("dim", dim))
    return lambda block, **shared: kind(hidden, **arguments, **shared)


def _mlp_mixer(
    family: str, dim: int, blocks: int, patch_size: int, num_classes: int, image_size: int,
    spatial_mixer: MixerFactory | None, channel_mixer: MixerFactory, **options: Any,
) -> keras.Model:  # fmt: skip
    if options.get("input_shape") is None:
        side = check_positive_int("image_size", image_size)
        channels_last = check_data_format(options.get("data_format")) == "channels_last"
        options["input_shape"] = (side, side, 3) if channels_last else (3, side, side)
    options = {
        "normalization": "layer", "residual": "both", "initializer": "keras", "linear_embedding": True,
        "name": f"{family}_{dim}_{blocks}", **options,
    }  # fmt: skip
    options.setdefault("final_normalization", options["normalization"])
    return IsotropicMixer(
        dim, blocks, patch_size, num_classes, spatial_mixer=spatial_mixer, channel_mixer=channel_mixer, **options
    )
