"""How all figures look: colours that colour-blind readers tell apart, and what every figure shares."""

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mixers.inference.images import is_channels_first
from keras_mixers.models.image_files import read_image

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
# Numbers around zero: blue below, red above; and numbers from small to large.
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
NEGATIVE, POSITIVE = "#2166AC", "#B2182B"
GAP = (1.0, 1.0, 1.0)
# Side in pixels to which the tiles of a mosaic are enlarged, so that the gaps between them stay thin.
TILE = 16


def new_figure(width: float, height: float, title: str = "") -> "Figure":
    """Makes an empty figure.

    Args:
        width: in inches; a page is 12 wide.
        height: in inches.
        title: of the whole figure.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('Figures need matplotlib: pip install "keras-mixers[visualize]"')
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def saved(figure: "Figure", save: str | Path | None) -> "Figure":
    """Writes a figure if `save` names a file, and returns it."""
    if save is not None:
        figure.savefig(save, dpi=150)
    return figure


def panels(figure: "Figure", count: int, columns: int) -> list["Axes"]:
    """Returns `count` axes in rows of `columns`."""
    columns = min(columns, count)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return list(axes[:count])


def colored(values: np.ndarray, colors: str) -> np.ndarray:
    """Returns the colours of numbers from 0 to 1, with three more numbers on the last axis."""
    from matplotlib import colormaps

    return colormaps[colors](values)[..., :3]


def scaled(tiles: np.ndarray, symmetric: bool = False) -> np.ndarray:
    """Scales each tile to numbers from 0 to 1, with 0 at 0.5 if `symmetric`."""
    axes = tuple(range(1, tiles.ndim))
    if symmetric:
        largest = np.abs(tiles).max(axes, keepdims=True)
        return 0.5 + 0.5 * tiles / np.where(largest == 0, 1, largest)
    low, high = tiles.min(axes, keepdims=True), tiles.max(axes, keepdims=True)
    return (tiles - low) / np.where(high == low, 1, high - low)


def mosaic(tiles: np.ndarray, columns: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
    """Lays coloured tiles side by side.

    Args:
        tiles: (tiles, height, width, 3).
        columns: tiles in a row; None for about as many as rows.
        frames: (tiles, 3), the colour of a frame around each; None for gaps of white.

    Returns:
        One image, (height, width, 3).

    Example:
        >>> mosaic(np.zeros((4, 16, 16, 3))).shape
        (36, 36, 3)
    """
    count, height, width, _ = tiles.shape
    enlarged = math.ceil(TILE / max(height, width))
    tiles = tiles.repeat(enlarged, 1).repeat(enlarged, 2)
    columns = columns or math.ceil(math.sqrt(count))
    framed = np.tile(np.array(GAP), (count, *(side + 2 for side in tiles.shape[1:3]), 1))
    if frames is not None:
        framed[:] = frames[:, None, None]
    framed[:, 1:-1, 1:-1] = tiles
    rows = math.ceil(count / columns)
    blank = np.tile(np.array(GAP), (rows * columns - count, *framed.shape[1:3], 1))
    grid = np.concatenate([framed, blank]).reshape(rows, columns, *framed.shape[1:])
    return grid.swapaxes(1, 2).reshape(rows * framed.shape[1], columns * framed.shape[2], 3)


def show(axes: "Axes", image: Any, title: str = "") -> None:
    """Shows an image without ticks."""
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def picture(model: "keras.Model", image: Any, prepared: np.ndarray) -> np.ndarray:
    """Returns an image as a network sees it: the part of a photograph that it takes, or numbers scaled to their range.

    Args:
        model: the network.
        image: what `prepare_images` made it of.
        prepared: the image as the network takes it.
    """
    if getattr(model, "pixels", None) is not None:
        return model.pixels.crop(read_image(image)) / 255
    prepared = np.moveaxis(prepared, 0, -1) if is_channels_first(model) else prepared
    in_color = prepared.shape[-1] == 3
    return scaled((prepared if in_color else prepared.mean(-1, keepdims=True).repeat(3, -1))[None])[0]
