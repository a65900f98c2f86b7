"""Which input channels can influence which outputs, after one mixer and after several blocks."""

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_mixers.visualize.style import evenly_chosen, new_panels, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mixed_channels(mixer: keras.layers.Layer, dim: int) -> np.ndarray:
    """Returns which of its `dim` input channels (columns) a built channel mixer computes each output (row) from.

    Example:
        >>> from keras_mixers.layers import ChannelSplitMixerI
        >>> mixer = ChannelSplitMixerI(ratio=2 / 3, block=0)
        >>> mixer.build((None, 8, 8, 3))
        >>> mixed_channels(mixer, 3).astype(int)
        array([[1, 1, 0],
               [1, 1, 0],
               [0, 0, 1]])
    """
    mixed = mixer.mixed_channels(dim) if hasattr(mixer, "mixed_channels") else None
    if mixed is None:
        raise ValueError(f"mixer must be a channel mixer of keras_mixers, got {type(mixer).__name__}.")
    return mixed | np.eye(dim, dtype=bool) if mixer.residual else mixed


def mixes_channels(layer: keras.layers.Layer) -> bool:
    """Whether a layer of a network says which channels it mixes."""
    if not hasattr(layer, "mixed_channels"):
        return False
    return layer.mixed_channels(layer.input.shape[layer.channel_axis]) is not None


def reachable_channels(model: keras.Model) -> np.ndarray:
    """Returns which channels of the patch embedding can influence each channel after each block.

    Args:
        model: a network of this library.

    Returns:
        (blocks, dim, dim) of bool: whether, after block [b], channel [i] can depend on the embedding's channel [j].

    Raises:
        ValueError: if the model has no channel mixers of this library.

    Example:
        In a SplitMixer-I every channel reaches every other after three blocks, in a SplitMixer-II never:

        >>> from keras_mixers import SplitMixerI, SplitMixerII
        >>> [reachable_channels(build(dim=6, blocks=4)).all((1, 2)).tolist() for build in (SplitMixerI, SplitMixerII)]
        [[False, False, True, True], [False, False, False, False]]
    """
    if not any(map(mixes_channels, model.layers)):
        raise ValueError(f"model must have channel mixers, as ConvMixer and SplitMixer do, got {model.name!r}.")
    dim = model.embedding.dim
    reach, found = np.eye(dim, dtype=bool), []
    for block in model.blocks:
        for mixer in filter(mixes_channels, block):
            reach = mixed_channels(mixer, dim) @ reach
        found.append(reach)
    return np.stack(found)


def channel_reach(model: keras.Model, save: str | Path | None = None) -> "Figure":
    """Draws `reachable_channels`: which channels of the embedding can influence each channel after each block.

    Args:
        model: a network of this library.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure, a panel for each block (of more than 12, evenly chosen ones): a row for each channel after
        the block, a column for each channel of the embedding, dark where the one can depend on the other. The title
        has the share of these pairs.

    Raises:
        ValueError: if the model has no channel mixers of this library.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> figure = channel_reach(keras_mixers.SplitMixerII(dim=32, blocks=2))
        >>> [axes.get_title() for axes in figure.axes]
        ['after block 0: 27 %', 'after block 1: 50 %']
    """
    reach = reachable_channels(model)
    blocks = evenly_chosen(len(reach), 12)
    figure, panels = new_panels(len(blocks), 4, f"Channels that can reach each other in {model.name}")
    for block, axes in zip(blocks, panels, strict=True):
        axes.imshow(reach[block], cmap="Blues", vmin=0, vmax=1.25, interpolation="nearest")
        axes.set_title(f"after block {block}: {100 * reach[block].mean():.0f} %", fontsize="medium")
        axes.set(xlabel="channel of the patch embedding", ylabel="channel after the block")
    return saved(figure, save)
