"""What a network knows before its head: the feature maps of its layers, and pyramids of them."""

import numbers
from collections.abc import Sequence
from itertools import chain
from typing import Any

import keras

from keras_mixers.layers.validation import did_you_mean
from keras_mixers.models.isotropic import INTERNAL_FORMAT
from keras_mixers.models.network import Network


def feature_extractor(model: keras.Model, layers: Sequence[str] | str | None = None) -> keras.Model:
    """Returns a model from a network's images to the outputs of its layers, by their names.

    It consists of the network's own layers: what is trained in one is trained in the other.

    Args:
        model: a network of this library, with or without its top.
        layers: names among `patch_embed`, `block_i_spatial`, `block_i_channel`, `norm` and `pool`; None takes all that
            it has. `norm` is that of the last block's output in networks whose mixers begin with a norm.

    Returns:
        A functional model whose output is a dictionary {name of the layer: its output}: feature maps
        (batch, height // patch_size, width // patch_size, dim), or (batch, dim, ...) in a network with
        `data_format="channels_first"`; those of `pool` are (batch, dim).

    Raises:
        ValueError: if `model` is not a network of this library, or has no such layer.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.SplitMixerI(16, 4, input_shape=(32, 32, 3), data_format="channels_last")
        >>> features = feature_extractor(model, ["patch_embed", "block_3_channel"])
        >>> features.output["block_3_channel"].shape
        (None, 16, 16, 16)
    """
    taps = _taps(model, "feature_extractor")
    names = [layers] if isinstance(layers, str) else list(taps if layers is None else layers)
    if not names:
        raise ValueError(f"layers must name at least one layer, got layers={layers!r}; None takes all.")
    return _to_outputs(model, {name: _tap(taps, name).output for name in names}, "features")


def feature_pyramid(
    model: keras.Model, layer: str | None = None, strides: Sequence[int] | int = (4, 8, 16, 32)
) -> keras.Model:
    """Returns a model from a network's images to feature maps of one of its layers at several strides.

    A network has one stride throughout, the pixels from one patch to the next. Its maps are averaged over windows for
    larger strides and interpolated bilinearly for smaller ones, which takes no parameters. The layers are the network's
    own, as in `feature_extractor`.

    Args:
        model: a network of this library, with or without its top.
        layer: name of a layer as in `feature_extractor`, but not `pool`; None for the last one, the last mixer of the
            last block or the norm after it.
        strides: pixels from one column of a map to the next, each a whole multiple or a whole fraction of the
            network's stride.

    Returns:
        A functional model whose output is a dictionary {"stride_4": ..., "stride_8": ...} of feature maps
        (batch, height // stride, width // stride, dim), or (batch, dim, ...) in a network with
        `data_format="channels_first"`, if patches do not overlap and all strides divide the images' sides. Otherwise
        positions on the right and below that fill no window are left out.

    Raises:
        ValueError: if `model` is not a network of this library or has no such layer, or strides are not as above or
            larger than its images.

    Example:
        >>> import keras_mixers
        >>> model = keras_mixers.ConvMixer(16, 4, patch_size=4, input_shape=(64, 96, 3), data_format="channels_last")
        >>> maps = feature_pyramid(model, strides=(2, 4, 32)).output
        >>> maps["stride_2"].shape, maps["stride_4"].shape, maps["stride_32"].shape
        ((None, 32, 48, 16), (None, 16, 24, 16), (None, 2, 3, 16))
    """
    taps = {name: tap for name, tap in _taps(model, "feature_pyramid").items() if name != "pool"}
    tap = _tap(taps, list(taps)[-1] if layer is None else layer)
    own = model.embedding.stride
    strides = (strides,) if isinstance(strides, numbers.Integral) else tuple(strides)
    fit = [isinstance(n, numbers.Integral) and n > 0 and 0 in (n % own, own % n) for n in strides]
    if not strides or not all(fit):
        raise ValueError(
            f"strides must be whole multiples or whole fractions of the network's stride of {own} pixels, got "
            f"strides={strides}; {own}, {2 * own} and {4 * own} would do."
        )

    sides = [size for size in tap.output.shape[1:3] if size is not None]
    if sides and max(strides) > own * min(sides):
        raise ValueError(
            f"strides must be at most {own * min(sides)} for the network's images, got strides={strides}; leave the "
            "larger ones out or build the network with a larger input_shape."
        )

    def at(stride: int) -> Any:
        shared = {"data_format": INTERNAL_FORMAT, "dtype": tap.dtype_policy, "name": f"stride_{stride}"}
        if stride > own:
            return keras.layers.AveragePooling2D(stride // own, **shared)(tap.output)
        if stride < own:
            return keras.layers.UpSampling2D(own // stride, interpolation="bilinear", **shared)(tap.output)
        return tap.output

    return _to_outputs(model, {f"stride_{stride}": at(stride) for stride in map(int, strides)}, "pyramid")


def _taps(model: keras.Model, function: str) -> dict[str, keras.layers.Layer]:
    """Returns the layers of a network that give features, by their names and in their order."""
    if not isinstance(model, Network):
        raise ValueError(
            f"{function} takes a network of keras_mixers, got {getattr(model, 'name', model)!r} of "
            f"{type(model).__name__}."
        )
    after_blocks = [layer for layer in model.layers if layer.name in ("norm", "pool")]
    return {layer.name: layer for layer in [model.embedding, *chain(*model.blocks), *after_blocks]}


def _tap(taps: dict[str, keras.layers.Layer], name: str) -> keras.layers.Layer:
    if name not in taps:
        raise ValueError(f"The network has no features of a layer named {name!r}; {did_you_mean(name, taps, count=1)}")
    return taps[name]


def _to_outputs(model: Network, outputs: dict[str, Any], kind: str) -> keras.Model:
    """Makes the model from the network's images to `outputs`, whose maps get the layout of the images."""
    if model.takes_channels_first:
        for name, x in outputs.items():
            if len(x.shape) == 4:
                permute = keras.layers.Permute((3, 1, 2), dtype=x.dtype, name=f"{name}_channels_first")
                outputs[name] = permute(x)
    extractor = keras.Model(model.input, outputs, name=f"{model.name}_{kind}")
    extractor.dtype_policy = model.dtype_policy  # here model.compile sees whether float16 needs loss scaling
    return extractor
