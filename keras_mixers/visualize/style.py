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
# Side in pixels to which the tiles of a mosaic are enlarged, so that the gaps between them stay thin.
TILE = 16


def new_figure(width: float, height: float, title: str) -> "Figure":
    """Makes an empty figure of this size in inches; a page is 12 wide."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('Figures need matplotlib: pip install "keras-mixers[visualize]"')
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def new_panels(count: int, columns: int, title: str) -> tuple["Figure", list["Axes"]]:
    """Makes a figure as wide as a page with `count` square panels, at most `columns` in a row."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(12, 0.7 + 12 / columns * rows * 1.08, title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def saved(figure: "Figure", save: str | Path | None) -> "Figure":
    """Writes a figure if `save` names a file, and returns it."""
    if save is not None:
        figure.savefig(save, dpi=150)
    return figure


def evenly_chosen(count: int, most: int) -> np.ndarray:
    """Returns at most `most` of `count` indices, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def colored(values: np.ndarray, colors: str) -> np.ndarray:
    """Returns the RGB colours of numbers from 0 to 1, on a new last axis."""
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


def mosaic(tiles: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
    """Lays coloured tiles (n, height, width, 3) side by side, as one image (height, width, 3).

    `frames` (n, 3) holds the colour of the frame around each tile; None leaves white gaps.

    Example:
        >>> mosaic(np.zeros((4, 16, 16, 3))).shape
        (36, 36, 3)
    """
    enlarged = math.ceil(TILE / max(tiles.shape[1:3]))
    tiles = tiles.repeat(enlarged, 1).repeat(enlarged, 2)
    count, height, width, _ = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.ones((rows * columns, height + 2, width + 2, 3))
    grid[:count] = 1 if frames is None else frames[:, None, None]
    grid[:count, 1:-1, 1:-1] = tiles
    grid = grid.reshape(rows, columns, height + 2, width + 2, 3).swapaxes(1, 2)
    return grid.reshape(rows * (height + 2), columns * (width + 2), 3)


def show(axes: "Axes", image: Any, title: str = "") -> None:
    """Shows an image without ticks."""
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def picture(model: "keras.Model", image: Any, prepared: np.ndarray) -> np.ndarray:
    """Returns an image as a network sees it: the crop of the photograph, or the `prepared` values scaled to [0, 1]."""
    if getattr(model, "pixels", None) is not None:
        return model.pixels.crop(read_image(image)) / 255
    prepared = np.moveaxis(prepared, 0, -1) if is_channels_first(model) else prepared
    return scaled((prepared if prepared.shape[-1] == 3 else gray(prepared))[None])[0]


def gray(image: np.ndarray) -> np.ndarray:
    """Returns the mean over the channels of an image, as three equal colours."""
    return image.mean(-1, keepdims=True).repeat(3, -1)
