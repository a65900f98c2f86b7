"""SplitMixer ("Fat trimmed from MLP-like models"): five ways to split the channels, and the 3D convolution."""

from typing import Unpack

import keras

from keras_mixers.layers import (
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
    SpatialMixer1D,
)
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models.isotropic import IsotropicMixer, MixerFactory, NetworkOptions, builder


@builder("SplitMixer-I")
def SplitMixerI(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    ratio: float = 2 / 3, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """SplitMixer-I-dim/blocks: two overlapping segments; even blocks mix the first, odd blocks the last (2.2.1).

    Args:
        dim: number of channels throughout, h.
        blocks: number of blocks, b.
        kernel_size: length of both depthwise kernels in patches, k.
        patch_size: side of a patch in pixels, p.
        num_classes: number of classes.
        ratio: width of a segment as a part of the channels, α in (0.5, 1], truncated to whole channels.
        **options: the keyword arguments of `IsotropicMixer`.

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3) to logits (batch, num_classes).

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> SplitMixerI(dim=256, blocks=8).get_layer("block_1_channel").mixed_spans
        [(86, 256)]
    """
    return _split_mixer(
        "splitmixer_i", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelSplitMixerI(ratio, block, **shared), **options,
    )  # fmt: skip


@builder("SplitMixer-II")
def SplitMixerII(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    segments: int = 2, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """SplitMixer-II-dim/blocks: segments side by side; block i mixes segment i mod s (2.2.2).

    All other arguments, the result and the errors are those of `SplitMixerI`.

    Args:
        segments: number of segments, s; the last one takes the remainder.

    Example:
        >>> SplitMixerII(dim=256, blocks=8, segments=3).get_layer("block_2_channel").mixed_spans
        [(170, 256)]
    """
    return _split_mixer(
        "splitmixer_ii", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelSplitMixerII(segments, block, **shared), **options,
    )  # fmt: skip


@builder("SplitMixer-III")
def SplitMixerIII(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    segments: int = 2, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """SplitMixer-III-dim/blocks: segments side by side, all mixed with the same parameters (2.2.3).

    All other arguments, the result and the errors are those of `SplitMixerI`.

    Args:
        segments: number of segments, s, which must divide `dim`.

    Example:
        >>> SplitMixerIII(dim=256, blocks=8, segments=4).get_layer("block_0_channel").spans
        [(0, 64), (64, 128), (128, 192), (192, 256)]
    """
    return _split_mixer(
        "splitmixer_iii", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelSplitMixerIII(segments, **shared), **options,
    )  # fmt: skip


@builder("SplitMixer-IV")
def SplitMixerIV(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    segments: int = 2, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """SplitMixer-IV-dim/blocks: segments side by side, all mixed, each with its own parameters (2.2.4).

    All other arguments, the result and the errors are those of `SplitMixerI`.

    Args:
        segments: number of segments, s; the last one takes the remainder.

    Example:
        >>> SplitMixerIV(dim=256, blocks=8, segments=3).get_layer("block_0_channel").spans
        [(0, 85), (85, 170), (170, 256)]
    """
    return _split_mixer(
        "splitmixer_iv", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelSplitMixerIV(segments, **shared), **options,
    )  # fmt: skip


@builder("SplitMixer-V")
def SplitMixerV(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    ratio: float = 2 / 3, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """SplitMixer-V-dim/blocks: two overlapping segments, both mixed, the second after the first (Appendix G).

    All other arguments, the result and the errors are those of `SplitMixerI`.

    Args:
        ratio: width of a segment as a part of the channels, α in (0.5, 1], truncated to whole channels.

    Example:
        >>> SplitMixerV(dim=256, blocks=8, ratio=3 / 5).get_layer("block_0_channel").mixed_spans
        [(0, 153), (103, 256)]
    """
    return _split_mixer(
        "splitmixer_v", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelSplitMixerV(ratio, **shared), **options,
    )  # fmt: skip


@builder("3D convolution")
def StrideMixer(
    dim: int, blocks: int, kernel_size: int = 5, patch_size: int = 2, num_classes: int = 10,
    channel_kernel_size: int | None = None, channel_stride: int | None = None, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """The SplitMixer whose channels a strided 3D convolution mixes (2.2, Appendix C).

    All other arguments, the result and the errors are those of `SplitMixerI`.

    Args:
        channel_kernel_size: length of the windows along the channels; None for `dim // 2`.
        channel_stride: channels from one window to the next; None for `channel_kernel_size`, less for overlap.

    Example:
        >>> StrideMixer(dim=256, blocks=8).get_layer("block_0_channel").filters
        128
    """
    window = channel_kernel_size or max(check_positive_int("dim", dim) // 2, 1)
    return _split_mixer(
        "stridemixer", dim, blocks, kernel_size, patch_size, num_classes,
        lambda block, **shared: ChannelStrideMixer(window, channel_stride, **shared), **options,
    )  # fmt: skip


def _split_mixer(
    family: str, dim: int, blocks: int, kernel_size: int, patch_size: int, num_classes: int,
    channel_mixer: MixerFactory, **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """Makes a network whose space is mixed in one dimension at a time, as in all of the paper's."""
    options.setdefault("name", f"{family}_{dim}_{blocks}")
    return IsotropicMixer(
        dim, blocks, patch_size, num_classes,
        spatial_mixer=lambda block, **shared: SpatialMixer1D(kernel_size, **shared),
        channel_mixer=channel_mixer, **options,
    )  # fmt: skip
