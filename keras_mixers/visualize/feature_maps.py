"""What a network makes of an image: feature maps after the embedding and after each block."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_mixers.inference.images import is_channels_first, prepare_images
from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models import feature_extractor
from keras_mixers.visualize import style
from keras_mixers.visualize.channel_reach import mixed_channels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = {"mixed": style.BLUE, "not mixed in this block": style.ORANGE}


def feature_maps(
    model: keras.Model,
    image: Any,
    layers: Sequence[str] | str | None = None,
    channels: int | None = 64,
    save: str | Path | None = None,
) -> "Figure":
    """Draws an image and its feature maps after the embedding and after each block (SplitMixer Figs. 16 to 20).

    Where a block mixes only one segment of the channels, frames tell the mixed channels from the others.

    Args:
        model: a network of this library.
        image: a file, or an array (height, width, 3) of pixels from 0 to 255, if the network knows its pixels;
            otherwise one image as the network takes it.
        layers: names of layers, as `feature_extractor` takes them; None for the embedding and each block.
        channels: how many maps of each layer are drawn, evenly chosen; None for all.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure. Each map is scaled to its own range: its smallest number is dark blue, its largest yellow.

    Raises:
        ValueError: if an argument is not as above.
        FileNotFoundError: if there is no such file.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.create_model("splitmixer_i_256_8", dim=16, blocks=2)
        >>> figure = feature_maps(model, np.zeros((32, 32, 3)))
        >>> [axes.get_title() for axes in figure.axes]
        ['image', 'patch_embed', 'block_0_channel', 'block_1_channel']
    """
    channels = channels if channels is None else check_positive_int("channels", channels)
    if layers is None:
        layers = ["patch_embed", *(block[-1].name for block in getattr(model, "blocks", []) if block)]
    layers = [layers] if isinstance(layers, str) else list(layers)
    extractor = feature_extractor(model, layers)
    batch = prepare_images(model, [image])
    found = extractor.predict(batch, verbose=0)
    flat = [name for name in layers if np.ndim(found[name]) != 4]
    if flat:
        raise ValueError(f"layers must give feature maps, got {flat[0]!r}, whose output has the shape (images, dim).")

    figure, (first, *others) = style.new_panels(len(layers) + 1, 4 if channels else 2, f"Feature maps of {model.name}")
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    style.show(first, style.picture(model, image, batch[0]), "image")
    framed = False
    for name, axes in zip(layers, others, strict=True):
        maps = found[name][0] if is_channels_first(model) else np.moveaxis(found[name][0], -1, 0)
        chosen = style.evenly_chosen(len(maps), channels or len(maps))
        mixed, frames = _mixed(model.get_layer(name), len(maps)), None
        if mixed is not None:
            frames = np.where(mixed[chosen][:, None], *map(to_rgb, FRAMES.values()))
            framed = True
        tiles = style.colored(style.scaled(maps[chosen].astype("float32")), style.SEQUENTIAL)
        style.show(axes, style.mosaic(tiles, frames), name)
    if framed:
        handles = [Patch(facecolor="none", edgecolor=color, lw=2, label=kind) for kind, color in FRAMES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, title="frame of a channel")
    return style.saved(figure, save)


def _mixed(layer: keras.layers.Layer, dim: int) -> np.ndarray | None:
    """Returns which channels a channel mixer has mixed, None if all, or if it is another layer."""
    try:
        mixed = mixed_channels(layer, dim).sum(1) > 1
    except ValueError:
        return None
    return None if mixed.all() else mixed
