"""Which channels hear from which: what the split mixers' segments come to after several blocks."""

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_mixers.layers import ChannelMixer, ChannelSplitMixer, ChannelStrideMixer
from keras_mixers.visualize.style import new_figure, panels, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mixed_channels(mixer: keras.layers.Layer, dim: int) -> np.ndarray:
    """Returns which channels a channel mixer computes each of its channels from.

    Args:
        mixer: a channel mixer of this library that is built.
        dim: number of its channels.

    Returns:
        (dim, dim) of bool, a row for each channel that comes out, a column for each that goes in.

    Raises:
        ValueError: if it is none of these mixers.

    Example:
        >>> from keras_mixers.layers import ChannelSplitMixerI
        >>> mixer = ChannelSplitMixerI(ratio=2 / 3, block=0)
        >>> mixer.build((None, 8, 8, 3))
        >>> mixed_channels(mixer, 3).astype(int)
        array([[1, 1, 0],
               [1, 1, 0],
               [0, 0, 1]])
    """
    if isinstance(mixer, ChannelMixer):
        return np.ones((dim, dim), bool)
    reach = np.eye(dim, dtype=bool)
    if isinstance(mixer, ChannelSplitMixer):
        for start, stop in mixer.mixed_spans:  # in order: where segments overlap, each sees what the one before wrote
            reach[start:stop] = reach[start:stop].any(0)
        groups = mixer.segments if mixer.shuffle else 1
    elif isinstance(mixer, ChannelStrideMixer):
        starts = np.repeat(np.arange(mixer.positions) * mixer.stride, mixer.filters)[:, None]
        reach = (starts <= np.arange(dim)) & (np.arange(dim) < starts + mixer.kernel_size)
        groups = mixer.positions
    else:
        raise ValueError(f"mixer must be a channel mixer of keras_mixers, got {type(mixer).__name__}.")
    shuffled = reach.reshape(groups, dim // groups, dim).swapaxes(0, 1).reshape(dim, dim)
    return shuffled | np.eye(dim, dtype=bool) if mixer.residual else shuffled


def reachable_channels(model: keras.Model) -> np.ndarray:
    """Returns which channels of the patch embedding can have a part in each channel after each block.

    Args:
        model: a network of this library.

    Returns:
        (blocks, dim, dim) of bool: [b, i, j] says whether channel i after block b, from 0, can depend on channel j of
        the embedding.

    Raises:
        ValueError: if the model has no channel mixers of this library.

    Example:
        A SplitMixer-I lets every channel hear from every other after three blocks, a SplitMixer-II never:

        >>> from keras_mixers import SplitMixerI, SplitMixerII
        >>> [reachable_channels(build(dim=6, blocks=4)).all((1, 2)).tolist() for build in (SplitMixerI, SplitMixerII)]
        [[False, False, True, True], [False, False, False, False]]
    """
    mixers = [
        layer for layer in model.layers if isinstance(layer, ChannelMixer | ChannelSplitMixer | ChannelStrideMixer)
    ]
    if not mixers:
        raise ValueError(f"model must have channel mixers, as ConvMixer and SplitMixer do, got {model.name!r}.")
    dim = mixers[0].norm.gamma.shape[0] if mixers[0].norm is not None else mixers[0].input.shape[-1]
    reach, found = np.eye(dim, dtype=bool), []
    for mixer in mixers:
        reach = mixed_channels(mixer, dim) @ reach
        found.append(reach)
    return np.stack(found)


def channel_reach(model: keras.Model, save: str | Path | None = None) -> "Figure":
    """Draws which channels of the patch embedding can have a part in each channel after each block.

    Args:
        model: a network of this library.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure, a panel for each block (of more than 12, evenly chosen ones): a row for each channel after
        it, a column for each channel of the embedding, dark where the one can depend on the other; above it, which
        part of all pairs that is.

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
    blocks = np.unique(np.linspace(0, len(reach) - 1, min(12, len(reach))).round().astype(int))
    columns = min(4, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = new_figure(12, 0.5 + 3.1 * rows, f"Channels that can reach each other in {model.name}")
    for block, axes in zip(blocks, panels(figure, len(blocks), columns), strict=True):
        axes.imshow(reach[block], cmap="Blues", vmin=0, vmax=1.25, interpolation="nearest")
        axes.set_title(f"after block {block}: {100 * reach[block].mean():.0f} %", fontsize="medium")
        axes.set_xlabel("channel of the patch embedding")
        axes.set_ylabel("channel after the block")
    return saved(figure, save)
