"""Channels are mixed: all at once in ConvMixer (Eq. 3), segment by segment in SplitMixer (Eq. 4, Section 2.2)."""

from itertools import chain, pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixers import backends
from keras_mixers.layers.mixing_layer import MixingLayer
from keras_mixers.layers.validation import check_block, check_keras, check_positive_int, check_ratio

Span = tuple[int, int]


@keras.saving.register_keras_serializable(package="keras_mixers")
class PointwiseConvolution(keras.layers.Dense):
    """A 1 × 1 convolution: a matrix product over the channels, with a kernel (input channels, output channels)."""

    def __init__(self, units: int, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.data_format = data_format

    def build(self, channels: int) -> None:
        super().build((None, channels))
        self.input_spec = None  # Dense would look for the channels on the last axis

    def call(self, x: Any) -> Any:
        return backends.pointwise_conv(x, self.kernel, self.bias, self.data_format)

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        check_keras("Quantisation of a mixer", (3, 12))
        if self.data_format != "channels_last":
            raise ValueError(
                "A mixer can be quantised with its channels last, as those of this library's networks are, got "
                f"data_format={self.data_format!r}."
            )
        super().quantize(mode, type_check=False, config=config)  # Dense leaves its subclasses out

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class PointwiseMixer(MixingLayer):
    """What all channel mixers share: 1 × 1 convolutions, then one activation and one norm on all channels."""

    torch_modules = {"pointwise": "{channel}", "norm": "{channel_norm}"}

    def make_convolution(self, inputs: int, outputs: int, name: str) -> PointwiseConvolution:
        convolution = self.new_convolution(PointwiseConvolution, outputs, fan_in=inputs, name=name)
        convolution.build(inputs)
        return convolution

    def mix_spans(self, x: Any, convolutions: dict[Span, PointwiseConvolution]) -> Any:
        """Convolves the channels of some spans, which lie in order, and leaves the others as they are."""
        channels = int(x.shape[self.channel_axis])  # a tensor where PyTorch traces
        bounds = sorted({0, channels, *chain(*convolutions)})
        parts = zip(pairwise(bounds), backends.split(x, bounds[1:-1], self.channel_axis), strict=True)
        return backends.mix_spans(dict(parts), convolutions, self.channel_axis)

    def channel_shuffle(self, x: Any, groups: int) -> Any:
        """Channel shuffle: moves channel c of group g to place c * groups + g."""
        axis = self.channel_axis % 4
        before, channels, after = ops.shape(x)[1:axis], x.shape[axis], ops.shape(x)[axis + 1 :]
        matrix = ops.reshape(x, (-1, *before, groups, channels // groups, *after))
        return ops.reshape(ops.swapaxes(matrix, axis, axis + 1), (-1, *before, channels, *after))

    def mix_channels(self, x: Any) -> Any:
        raise NotImplementedError

    def mix(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        return self.mix_channels(x), self.norm

    def mixed_channels(self, dim: int) -> np.ndarray:
        return np.ones((dim, dim), bool)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelMixer(PointwiseMixer):
    """Mixes all channels at each position: `z = N(σ{ConvPointwise(z')})` (ConvMixer Eq. 3).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`.

    Args:
        **kwargs: `activation`, `normalization`, `residual` (False), `initializer`, `data_format`, `drop_path_rate` and
            what every Keras layer takes; see `PostNormLayer` and `MixingLayer`.

    Raises:
        ValueError: if an argument is not as above, or the input is not a batch of images.

    Example:
        >>> import keras
        >>> ChannelMixer()(keras.Input((16, 16, 8))).shape
        (None, 16, 16, 8)
    """

    torch_layouts = ("timm", "convmixer")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        self.pointwise = self.make_convolution(channels, channels, "pointwise")
        self.norm = self.make_norm(channels)

    def mix_channels(self, x: Any) -> Any:
        return self.pointwise(x)

    def write_mix(self, writer: Any, maps: Any) -> Any:
        return writer.convolve(self.pointwise, maps, self.name)


def segment_spans(channels: int, segments: int, ratio: float | None = None) -> list[Span]:
    """Cuts channels into segments, each a span (start, stop).

    Without `ratio` the segments lie side by side, `channels // segments` wide, and the last takes the remainder. With
    it each is `int(channels * ratio)` wide and they are spread evenly from the first channel to the last, so that
    neighbours overlap.

    Example:
        >>> segment_spans(256, 3)
        [(0, 85), (85, 170), (170, 256)]
        >>> segment_spans(256, 2, ratio=2 / 3)
        [(0, 170), (86, 256)]
        >>> segment_spans(256, 3, ratio=1 / 2)
        [(0, 128), (64, 192), (128, 256)]
    """
    if segments > channels:
        raise ValueError(
            f"segments must be at most the number of channels, got segments={segments} for dim={channels}."
        )
    if ratio is None:
        starts = [i * (channels // segments) for i in range(segments)]
        return list(pairwise([*starts, channels]))
    width = int(channels * ratio)
    if width < 1:
        raise ValueError(f"ratio must leave each segment a channel, got ratio={ratio} for dim={channels}.")
    starts = [i * (channels - width) // max(segments - 1, 1) for i in range(segments)]
    return [(start, start + width) for start in starts]


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixer(PointwiseMixer):
    """Mixes the channels within segments: `z = N(σ{ConvPointwise over segments(z')})` (SplitMixer Eq. 4).

    The channels are cut into segments (see `segment_spans`), and a 1 × 1 convolution mixes each segment, or only one of
    them. Segments are mixed in order, and where they overlap, each sees what the one before has written. σ and N act on
    all channels, the unmixed ones too.

    The paper's mixers are `ChannelSplitMixerI` to `V`. What it leaves to the future is an argument away: parameters
    shared by overlapping segments (`ratio=2 / 3, shared=True`), more than two overlapping segments
    (`segments=3, ratio=1 / 2`), shuffled segments (`shared=True, shuffle=True`).

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`.

    Args:
        segments: number of segments, s.
        ratio: width of a segment as a part of the channels, α in (1 / segments, 1], truncated to whole channels;
            None for segments side by side. A single segment may be of any width; the channels behind it stay unmixed.
        block: index of the block in its network, for networks that mix one segment per block: this layer then mixes
            only segment `block % segments`. None mixes all.
        shared: whether all segments are mixed with the same parameters; they must be equally wide.
        shuffle: whether a channel shuffle follows, which interleaves the segments; they must divide the channels.
        **kwargs: `activation`, `normalization`, `residual` (False), `initializer`, `data_format`, `drop_path_rate` and
            what every Keras layer takes; see `PostNormLayer` and `MixingLayer`.

    Raises:
        ValueError: if an argument is not as above, or the input's channels cannot be cut in this way.

    Example:
        >>> import keras
        >>> mixer = ChannelSplitMixer(segments=3, ratio=1 / 2, shared=True)
        >>> mixer(keras.Input((16, 16, 8))).shape
        (None, 16, 16, 8)
        >>> mixer.spans, mixer.count_params()
        ([(0, 4), (2, 6), (4, 8)], 52)
    """

    # The arguments that a special case leaves open, hence the keys of its config.
    arguments = ("segments", "ratio", "block", "shared", "shuffle")
    torch_modules = {"pointwise": "{channel}.mixer", "norm": "{channel_norm}"}
    torch_layouts = ()  # only its special cases are published

    def __init__(
        self,
        segments: int = 2,
        ratio: float | None = None,
        block: int | None = None,
        shared: bool = False,
        shuffle: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segments = check_positive_int("segments", segments)
        self.ratio = ratio if ratio is None else check_ratio(ratio, above=1 / segments if segments > 1 else 0)
        self.block = block if block is None else check_block(block)
        self.shared = bool(shared)
        self.shuffle = bool(shuffle)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        equal_parts = (self.shared and self.ratio is None) or self.shuffle
        if equal_parts and channels % self.segments:
            raise ValueError(
                f"{type(self).__name__} needs dim divisible by segments, got dim={channels}, segments={self.segments}."
            )
        self.spans = segment_spans(channels, self.segments, self.ratio)
        self.mixed_spans = self.spans if self.block is None else [self.spans[self.block % self.segments]]
        widths = [stop - start for start, stop in self.mixed_spans]
        self.pointwise = [
            self.make_convolution(width, width, f"pointwise_{i}")
            for i, width in enumerate(widths[:1] if self.shared else widths)
        ]
        self.norm = self.make_norm(channels)

    @property
    def steps(self) -> list[dict[Span, PointwiseConvolution]]:
        """What is mixed at once: segments that overlap one after the other, others together."""
        mixed = list(zip(self.mixed_spans, self.pointwise * self.kernel_uses, strict=True))
        return [dict(step) for step in ([mixed] if self.ratio is None else [[one] for one in mixed])]

    def mix_channels(self, x: Any) -> Any:
        for step in self.steps:
            x = self.mix_spans(x, step)
        return self.channel_shuffle(x, self.segments) if self.shuffle else x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in self.arguments}}

    @property
    def kernel_uses(self) -> int:
        return len(self.mixed_spans) if self.shared else 1

    def write_mix(self, writer: Any, maps: Any) -> Any:
        if self.shared:
            maps = writer.apply(maps, f"{self.name}_norm_before")  # one kernel serves all segments
        for i, step in enumerate(self.steps):
            bounds = sorted({0, len(maps.scale), *chain(*step)})
            parts = []
            for span, part in zip(pairwise(bounds), writer.split(maps, bounds[1:-1]), strict=True):
                name = f"{self.name}_{span[0]}_{span[1]}"
                if span in step:
                    parts.append(writer.convolve(step[span], part, name))
                else:
                    parts.append(writer.pass_by(part, f"{name}_{i}_norm_before", last=i == len(self.steps) - 1))
            maps = writer.join(parts)
        return writer.channel_shuffle(maps, self.segments) if self.shuffle else maps

    def mixed_channels(self, dim: int) -> np.ndarray:
        reach = np.eye(dim, dtype=bool)
        for start, stop in self.mixed_spans:  # in order: where segments overlap, each sees what the one before wrote
            reach[start:stop] = reach[start:stop].any(0)
        return _shuffled(reach, self.segments) if self.shuffle else reach


def _shuffled(rows: np.ndarray, groups: int) -> np.ndarray:
    """Moves row c of group g to place c * groups + g, as the channel shuffle does."""
    return rows.reshape(groups, len(rows) // groups, -1).swapaxes(0, 1).reshape(rows.shape)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixerI(ChannelSplitMixer):
    """Two overlapping segments; even blocks mix the first, odd blocks the last (SplitMixer 2.2.1).

    Args:
        ratio: width of a segment as a part of the channels, α in (0.5, 1], truncated to whole channels.
        block: index of the block in its network.
        **kwargs: the keyword arguments of `ChannelSplitMixer`, which also says the shapes.

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> mixer = ChannelSplitMixerI(ratio=2 / 3, block=1)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.mixed_spans
        [(86, 256)]
    """

    arguments = ("ratio", "block")
    torch_layouts = ("convmixer", "splitmixer")

    def __init__(self, ratio: float = 2 / 3, block: int = 0, **kwargs: Any) -> None:
        super().__init__(segments=2, ratio=check_ratio(ratio, above=0.5), block=check_block(block), **kwargs)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixerII(ChannelSplitMixer):
    """Segments side by side; block i mixes segment i mod s (SplitMixer 2.2.2).

    Args:
        segments: number of segments, s; the last one takes the remainder.
        block: index of the block in its network.
        **kwargs: the keyword arguments of `ChannelSplitMixer`, which also says the shapes.

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> mixer = ChannelSplitMixerII(segments=3, block=2)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.mixed_spans
        [(170, 256)]
    """

    arguments = ("segments", "block")
    torch_layouts = ("convmixer", "splitmixer")

    def __init__(self, segments: int = 2, block: int = 0, **kwargs: Any) -> None:
        super().__init__(segments=segments, block=check_block(block), **kwargs)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixerIII(ChannelSplitMixer):
    """Segments side by side, all mixed with the same parameters (SplitMixer 2.2.3).

    Args:
        segments: number of segments, s, which must divide the channels.
        **kwargs: the keyword arguments of `ChannelSplitMixer`, which also says the shapes.

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> mixer = ChannelSplitMixerIII(segments=4, normalization=None)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.count_params()
        4160
    """

    arguments = ("segments",)
    torch_layouts = ("convmixer", "splitmixer")

    def __init__(self, segments: int = 2, **kwargs: Any) -> None:
        super().__init__(segments=segments, shared=True, **kwargs)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixerIV(ChannelSplitMixer):
    """Segments side by side, all mixed, each with its own parameters (SplitMixer 2.2.4).

    Args:
        segments: number of segments, s; the last one takes the remainder.
        **kwargs: the keyword arguments of `ChannelSplitMixer`, which also says the shapes.

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> mixer = ChannelSplitMixerIV(segments=4, normalization=None)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.count_params()
        16640
    """

    arguments = ("segments",)
    torch_modules = {"pointwise": "{channel}.mixer.{j}", "norm": "{channel_norm}"}
    torch_layouts = ("convmixer", "splitmixer")

    def __init__(self, segments: int = 2, **kwargs: Any) -> None:
        super().__init__(segments=segments, **kwargs)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelSplitMixerV(ChannelSplitMixer):
    """Two overlapping segments, both mixed, the second after the first (SplitMixer Appendix G).

    Args:
        ratio: width of a segment as a part of the channels, α in (0.5, 1], truncated to whole channels.
        **kwargs: the keyword arguments of `ChannelSplitMixer`, which also says the shapes.

    Raises:
        ValueError: if an argument is not as above.

    Example:
        >>> mixer = ChannelSplitMixerV(ratio=2 / 3)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.mixed_spans
        [(0, 170), (86, 256)]
    """

    arguments = ("ratio",)
    torch_modules = {"pointwise": "{channel}.mixer{j1}", "norm": "{channel_norm}"}
    torch_layouts = ("convmixer", "splitmixer")

    def __init__(self, ratio: float = 2 / 3, **kwargs: Any) -> None:
        super().__init__(segments=2, ratio=check_ratio(ratio, above=0.5), **kwargs)


@keras.saving.register_keras_serializable(package="keras_mixers")
class ChannelStrideMixer(PointwiseMixer):
    """Mixes the channels with a strided convolution along them, the paper's 3D convolution (SplitMixer 2.2).

    A window of `kernel_size` channels stands at n = (dim - kernel_size) / stride + 1 positions, and dim / n filters
    read it: `y[f · n + j] = Σ_c w[c, f] · x[j · stride + c] + b[f]`, then `N(σ{y})`. The positions of a filter end up
    side by side, so with windows side by side this is `ChannelSplitMixerIII` followed by a channel shuffle.

    Input and output (batch, height, width, channels), or (batch, channels, height, width) with
    `data_format="channels_first"`.

    Args:
        kernel_size: length of a window in channels.
        stride: channels from one window to the next; None means `kernel_size`, less makes the windows overlap.
        **kwargs: `activation`, `normalization`, `residual` (False), `initializer`, `data_format`, `drop_path_rate` and
            what every Keras layer takes; see `PostNormLayer` and `MixingLayer`.

    Raises:
        ValueError: if the windows do not end at the last channel, or their number does not divide the channels.

    Example:
        >>> mixer = ChannelStrideMixer(kernel_size=128, normalization=None)
        >>> mixer.build((None, 16, 16, 256))
        >>> mixer.count_params()
        16512
    """

    torch_layouts = ("stridemixer",)

    def __init__(self, kernel_size: int, stride: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size = check_positive_int("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else check_positive_int("stride", stride)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.channels_of(input_shape)
        positions, rest = divmod(channels - self.kernel_size, self.stride)
        self.positions = positions + 1
        if rest or positions < 0 or channels % self.positions:
            raise ValueError(
                "ChannelStrideMixer needs (dim - kernel_size) divisible by stride and dim divisible by the number of "
                f"windows, got dim={channels}, kernel_size={self.kernel_size}, stride={self.stride}."
            )
        self.filters = channels // self.positions
        self.windows = [(j * self.stride, j * self.stride + self.kernel_size) for j in range(self.positions)]
        self.pointwise = self.make_convolution(self.kernel_size, self.filters, "pointwise")
        self.norm = self.make_norm(channels)

    def mix_channels(self, x: Any) -> Any:
        outputs = []
        for start, stop in self.windows:
            cuts = [position for position in (start, stop) if 0 < position < self.windows[-1][1]]
            window = backends.split(x, cuts, self.channel_axis)[1 if start else 0]
            outputs.append(self.pointwise(window))
        return self.channel_shuffle(backends.join(outputs, self.channel_axis), self.positions)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size, "stride": self.stride}

    @property
    def kernel_uses(self) -> int:
        return self.positions

    def write_mix(self, writer: Any, maps: Any) -> Any:
        maps = writer.apply(maps, f"{self.name}_norm_before")  # one kernel reads all windows
        windows = [writer.split(maps, span)[1 if span[0] else 0] for span in self.windows]
        outputs = [writer.convolve(self.pointwise, window, f"{self.name}_{j}") for j, window in enumerate(windows)]
        return writer.channel_shuffle(writer.join(outputs), self.positions)

    def mixed_channels(self, dim: int) -> np.ndarray:
        starts, stops = np.repeat(self.windows, self.filters, axis=0).T[:, :, None]
        channels = np.arange(dim)
        return _shuffled((starts <= channels) & (channels < stops), self.positions)
