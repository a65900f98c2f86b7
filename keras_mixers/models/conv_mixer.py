"""ConvMixer ("Patches are all you need?")."""

from typing import Unpack

import keras

from keras_mixers.layers import ChannelMixer, SpatialMixer2D
from keras_mixers.models.isotropic import IsotropicMixer, NetworkOptions, builder


@builder("ConvMixer")
def ConvMixer(
    dim: int, depth: int, kernel_size: int = 9, patch_size: int = 7, num_classes: int = 1000,
    **options: Unpack[NetworkOptions],
) -> keras.Model:  # fmt: skip
    """ConvMixer-dim/depth: k × k depthwise and full 1 × 1 convolutions (ConvMixer Eqs. 1-3).

    Args:
        dim: number of channels throughout, h.
        depth: number of blocks, d.
        kernel_size: side of the depthwise kernels in patches, k.
        patch_size: side of a patch in pixels, p.
        num_classes: number of classes.
        **options: the keyword arguments of `IsotropicMixer`.

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3) to logits (batch, num_classes).

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> model = ConvMixer(dim=256, depth=8, kernel_size=5, patch_size=2, num_classes=10)
        >>> model.count_params() - sum(w.value.shape[0] for w in model.non_trainable_weights)
        594186
    """
    options.setdefault("name", f"convmixer_{dim}_{depth}")
    return IsotropicMixer(
        dim, depth, patch_size, num_classes,
        spatial_mixer=lambda block, **shared: SpatialMixer2D(kernel_size, **shared),
        channel_mixer=lambda block, **shared: ChannelMixer(**shared), **options,
    )  # fmt: skip
