"""What the convolutions have learned: the patch embedding, and the depthwise kernels of each block."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_mixers.layers import PatchEmbed, SpatialMixer1D, SpatialMixer2D
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.visualize.style import (
    DIVERGING,
    NEGATIVE,
    POSITIVE,
    colored,
    mosaic,
    new_figure,
    panels,
    saved,
    scaled,
    show,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def patch_embedding(model: keras.Model, save: str | Path | None = None) -> "Figure":
    """Draws the kernels of the patch embedding, a tile for each channel (ConvMixer Figs. 4 and 5).

    Args:
        model: a network of this library.
        save: a file to write the figure to, such as "patch_embedding.png".

    Returns:
        A matplotlib figure. Kernels on colour images are shown in colour, each scaled to its own range, so that its
        smallest number is black; others as their mean over the colours, red above zero and blue below.

    Raises:
        ValueError: if the model has no patch embedding.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> figure = patch_embedding(keras_mixers.ConvMixer(dim=16, depth=1, patch_size=7))
        >>> figure.axes[0].get_title()
        '16 kernels of 7 × 7 pixels'
    """
    layer = next((layer for layer in model.layers if isinstance(layer, PatchEmbed)), None)
    if layer is None:
        raise ValueError(f"model must have a PatchEmbed, as the networks of keras_mixers do, got {model.name!r}.")
    kernels = np.moveaxis(keras.ops.convert_to_numpy(layer.convolution.kernel).astype("float32"), -1, 0)
    in_color = kernels.shape[-1] == 3
    tiles = scaled(kernels) if in_color else colored(scaled(kernels.mean(-1), symmetric=True), DIVERGING)
    figure = new_figure(8, 8.4, f"Patch embedding of {model.name}")
    size = layer.patch_size
    show(figure.subplots(), mosaic(tiles), f"{len(tiles)} kernels of {size} × {size} pixels")
    return saved(figure, save)


def depthwise_kernels(
    model: keras.Model,
    blocks: Sequence[int] | None = None,
    kernels: int | None = None,
    seed: int = 0,
    save: str | Path | None = None,
) -> "Figure":
    """Draws depthwise kernels of successive blocks, a panel for each (ConvMixer Fig. 6).

    A kernel of two dimensions is a tile. A pair of one-dimensional ones is its outer product, with the kernel across
    the width as bars above it, and that across the height as bars beside it; in the network an activation and a norm
    stand between the two. Red is above zero, blue below, each kernel scaled to its own largest number.

    Args:
        model: a network of this library.
        blocks: the blocks to show, from 0; None for at most eight from the first to the last.
        kernels: how many of each block; None for 64, or 16 pairs.
        seed: of the channels that are drawn where there are more; they are the same in all blocks.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if the model has no depthwise convolutions, or an argument is not as above.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> figure = depthwise_kernels(keras_mixers.SplitMixerI(dim=32, blocks=3), kernels=9)
        >>> [axes.get_title() for axes in figure.axes]
        ['block 0', 'block 1', 'block 2']
    """
    mixers = list(filter(has_kernels, model.layers))
    if not mixers:
        raise ValueError(f"model must have spatial mixers, as ConvMixer and SplitMixer do, got {model.name!r}.")
    if blocks is None:
        blocks = np.unique(np.linspace(0, len(mixers) - 1, min(8, len(mixers))).round().astype(int)).tolist()
    wrong = [block for block in blocks if block not in range(len(mixers))]
    if wrong or not len(blocks):
        raise ValueError(f"blocks must be from 0 to {len(mixers) - 1} for {model.name!r}, got blocks={blocks!r}.")
    one_dimensional = isinstance(mixers[blocks[0]], SpatialMixer1D)
    kernels = check_positive_int("kernels", kernels or (16 if one_dimensional else 64))
    channels = _width(mixers[0])
    chosen = np.sort(np.random.default_rng(seed).permutation(channels)[:kernels])

    columns = min(4, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = new_figure(12, 0.6 + 12 / columns * rows * 1.06, f"Depthwise kernels of {model.name}")
    for block, axes in zip(blocks, panels(figure, len(blocks), columns), strict=True):
        mixer = mixers[block]
        if isinstance(mixer, SpatialMixer1D):
            across_width, across_height = (
                _kernels(convolution)[chosen] for convolution in (mixer.width_convolution, mixer.height_convolution)
            )
            _show_pairs(axes, across_width[:, 0], across_height[:, :, 0])
        else:
            tiles = _kernels(mixer.convolution)[chosen]
            show(axes, mosaic(colored(scaled(tiles, symmetric=True), DIVERGING)))
        axes.set_title(f"block {block}", fontsize="medium")
    return saved(figure, save)


def has_kernels(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a spatial mixer whose kernels can be drawn."""
    return isinstance(layer, SpatialMixer1D | SpatialMixer2D)


def _width(mixer: keras.layers.Layer) -> int:
    convolution = mixer.width_convolution if isinstance(mixer, SpatialMixer1D) else mixer.convolution
    return convolution.kernel.shape[2]


def _kernels(convolution: keras.layers.Layer) -> np.ndarray:
    """Returns the kernels of a depthwise convolution, (channels, height, width)."""
    return np.moveaxis(keras.ops.convert_to_numpy(convolution.kernel)[..., 0].astype("float32"), -1, 0)


def _show_pairs(axes: "Axes", across_width: np.ndarray, across_height: np.ndarray) -> None:
    """Shows pairs of kernels, (pairs, kernel size) each, in a grid of cells: product, bars above and on the right."""
    pairs, size = across_width.shape
    columns = int(np.ceil(np.sqrt(pairs)))
    cell, side, bar = 1.0, 0.6, 0.12  # bars reach `bar` to either side of their zero
    places = np.arange(size) * side / size + side / size / 2
    across_width, across_height = (
        values / np.abs(values).max(1, keepdims=True).clip(1e-12) for values in (across_width, across_height)
    )
    for pair, (width, height) in enumerate(zip(across_width, across_height, strict=True)):
        left, top = cell * (pair % columns), cell * (pair // columns)
        product = colored(0.5 + 0.5 * height[:, None] * width[None, :], DIVERGING)
        image_top = top + 2 * bar + 0.04
        axes.imshow(product, extent=(left, left + side, image_top + side, image_top), interpolation="nearest")
        colors = [[POSITIVE if value > 0 else NEGATIVE for value in values] for values in (width, height)]
        zeros = top + bar, left + side + 0.04 + bar
        axes.bar(left + places, -bar * width, 0.8 * side / size, bottom=zeros[0], color=colors[0])
        axes.barh(image_top + places, bar * height, 0.8 * side / size, left=zeros[1], color=colors[1])
        axes.hlines(zeros[0], left, left + side, color="0.6", linewidth=0.5)
        axes.vlines(zeros[1], image_top, image_top + side, color="0.6", linewidth=0.5)
    rows = -(-pairs // columns)
    axes.set(xlim=(-0.02, cell * columns), ylim=(cell * rows, -0.02), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
