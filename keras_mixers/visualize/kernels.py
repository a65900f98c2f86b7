"""What mixes space: the patch embedding, depthwise kernels, and products over all positions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_mixers.layers import PatchEmbed, PreNormMixer, SpatialMixer1D, SpatialMixer2D
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.visualize import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def patch_embedding(model: keras.Model, save: str | Path | None = None) -> "Figure":
    """Draws the kernels of the patch embedding, a tile for each channel (ConvMixer Figs. 4 and 5).

    Args:
        model: a network of this library.
        save: a file to write the figure to, such as "patch_embedding.png".

    Returns:
        A matplotlib figure. Kernels on colour images are shown in colour, each scaled to its own range; others as
        their mean over the input channels, red above zero and blue below.

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
    tiles = style.scaled(kernels) if kernels.shape[-1] == 3 else _red_and_blue(kernels.mean(-1))
    figure = style.new_figure(8, 8.4, f"Patch embedding of {model.name}")
    size = layer.patch_size
    style.show(figure.subplots(), style.mosaic(tiles), f"{len(tiles)} kernels of {size} × {size} pixels")
    return style.saved(figure, save)


def depthwise_kernels(
    model: keras.Model,
    blocks: Sequence[int] | None = None,
    kernels: int | None = None,
    seed: int = 0,
    save: str | Path | None = None,
) -> "Figure":
    """Draws depthwise kernels of successive blocks, a panel for each (ConvMixer Fig. 6).

    A two-dimensional kernel is a tile. A pair of one-dimensional ones is its outer product, with the kernel across the
    width as bars above and the one across the height as bars beside it; in the network an activation and a norm stand
    between the two. Red is above zero, blue below; each kernel is scaled by its largest absolute value.

    Args:
        model: a network of this library.
        blocks: indices of the blocks, from 0; None for at most eight from the first to the last.
        kernels: how many of each block; None for 64, or 16 pairs.
        seed: chooses the channels where a block has more; they are the same in all blocks.
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
    mixers = spatial_mixers(model)
    if not mixers:
        raise ValueError(f"model must have spatial mixers, as ConvMixer and SplitMixer do, got {model.name!r}.")
    blocks = _chosen_blocks(model, mixers, blocks)
    one_dimensional = isinstance(mixers[blocks[0]], SpatialMixer1D)
    kernels = check_positive_int("kernels", kernels or (16 if one_dimensional else 64))
    channels = len(_kernels(mixers[0])[0])
    chosen = np.sort(np.random.default_rng(seed).permutation(channels)[:kernels])

    figure, panels = style.new_panels(len(blocks), 4, f"Depthwise kernels of {model.name}")
    for block, axes in zip(blocks, panels, strict=True):
        shown = [kernel[chosen] for kernel in _kernels(mixers[block])]
        if len(shown) == 2:
            _show_pairs(axes, shown[0][:, 0], shown[1][:, :, 0])
        else:
            style.show(axes, style.mosaic(_red_and_blue(shown[0])))
        axes.set_title(f"block {block}", fontsize="medium")
    return style.saved(figure, save)


def token_kernels(
    model: keras.Model,
    blocks: Sequence[int] | None = None,
    units: int = 64,
    seed: int = 0,
    save: str | Path | None = None,
) -> "Figure":
    """Draws which positions the products over all of them read, a panel for each block (MLP-Mixer Fig. 5).

    A tile is one unit of a block's first product over the positions: its weight for each position, where that lies in
    the grid of patches. Units are the hidden ones of an MLP-Mixer, and in ResMLP and gMLP the output, or the gate, at
    each position. Red is above zero, blue below; each tile is scaled by its largest absolute value.

    Args:
        model: a network of this library.
        blocks: indices of the blocks, from 0; None for at most eight from the first to the last.
        units: how many of each block.
        seed: chooses the units where a block has more; they are the same in all blocks, in their order.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if the model has no products over positions, or was quantised, or an argument is not as above.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> figure = token_kernels(keras_mixers.MLPMixer(dim=32, blocks=3, patch_size=4, image_size=32), units=9)
        >>> [axes.get_title() for axes in figure.axes]
        ['block 0', 'block 1', 'block 2']
    """
    mixers = token_mixers(model)
    if not mixers:
        raise ValueError(f"model must mix all positions, as MLP-Mixer, ResMLP and gMLP do, got {model.name!r}.")
    products = [mixer.token_products[0] for mixer in mixers]
    if products[0].quantization_mode is not None:
        raise ValueError(
            f"model must not be quantised, got {model.name!r} in {products[0].quantization_mode}; pass the original "
            "network."
        )
    blocks = _chosen_blocks(model, mixers, blocks)
    count = products[0].units
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[: check_positive_int("units", units)])

    figure, panels = style.new_panels(len(blocks), 4, f"Weights of {model.name} for each position")
    for block, axes in zip(blocks, panels, strict=True):
        kernel = keras.ops.convert_to_numpy(products[block].kernel).astype("float32")
        tiles = kernel.T[chosen].reshape(-1, *mixers[block].grid)
        style.show(axes, style.mosaic(_red_and_blue(tiles)), f"block {block}")
    return style.saved(figure, save)


def spatial_mixers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers whose depthwise kernels can be drawn."""
    return [layer for layer in model.layers if isinstance(layer, SpatialMixer1D | SpatialMixer2D)]


def token_mixers(model: keras.Model) -> list[PreNormMixer]:
    """Returns the layers with products over all positions."""
    return [layer for layer in model.layers if isinstance(layer, PreNormMixer) and layer.token_products]


def _chosen_blocks(model: keras.Model, mixers: Sequence[Any], blocks: Sequence[int] | None) -> Sequence[int]:
    """Returns the given indices of mixers, or at most eight of them."""
    if blocks is None:
        return style.evenly_chosen(len(mixers), 8).tolist()
    if not len(blocks) or any(block not in range(len(mixers)) for block in blocks):
        raise ValueError(f"blocks must be from 0 to {len(mixers) - 1} for {model.name!r}, got blocks={blocks!r}.")
    return blocks


def _red_and_blue(tiles: np.ndarray) -> np.ndarray:
    return style.colored(style.scaled(tiles, symmetric=True), style.DIVERGING)


def _kernels(mixer: keras.layers.Layer) -> list[np.ndarray]:
    """Returns the kernels of each depthwise convolution of a mixer, (channels, height, width)."""
    one_dimensional = isinstance(mixer, SpatialMixer1D)
    convolutions = [mixer.width_convolution, mixer.height_convolution] if one_dimensional else [mixer.convolution]
    kernels = [keras.ops.convert_to_numpy(convolution.kernel) for convolution in convolutions]
    return [np.moveaxis(kernel[..., 0].astype("float32"), -1, 0) for kernel in kernels]


def _show_pairs(axes: "Axes", across_width: np.ndarray, across_height: np.ndarray) -> None:
    """Shows pairs of kernels, (pairs, kernel size) each, in a grid: the product, with bars above and on the right."""
    pairs, size = across_width.shape
    columns = int(np.ceil(np.sqrt(pairs)))
    cell, side, bar = 1.0, 0.6, 0.12  # bars reach `bar` to either side of their zero
    places = np.arange(size) * side / size + side / size / 2
    across_width, across_height = (
        values / np.abs(values).max(1, keepdims=True).clip(1e-12) for values in (across_width, across_height)
    )
    for pair, (width, height) in enumerate(zip(across_width, across_height, strict=True)):
        left, top = cell * (pair % columns), cell * (pair // columns)
        product = _red_and_blue(np.outer(height, width)[None])[0]
        image_top = top + 2 * bar + 0.04
        axes.imshow(product, extent=(left, left + side, image_top + side, image_top), interpolation="nearest")
        colors = [np.where(values > 0, style.POSITIVE, style.NEGATIVE) for values in (width, height)]
        zeros = top + bar, left + side + 0.04 + bar
        axes.bar(left + places, -bar * width, 0.8 * side / size, bottom=zeros[0], color=colors[0])
        axes.barh(image_top + places, bar * height, 0.8 * side / size, left=zeros[1], color=colors[1])
        axes.hlines(zeros[0], left, left + side, color="0.6", linewidth=0.5)
        axes.vlines(zeros[1], image_top, image_top + side, color="0.6", linewidth=0.5)
    rows = -(-pairs // columns)
    axes.set(xlim=(-0.02, cell * columns), ylim=(cell * rows, -0.02), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
