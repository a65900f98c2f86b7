import functools

import numpy as np
import pytest
import reference
from agreement import (
    OTHER_OPTIONS,
    TOLERANCE,
    array,
    assert_agrees,
    assert_equals_reference,
    both_formats,
    built,
    norm_of,
    run,
)

from keras_mixers.layers import (
    ChannelMixer,
    ChannelSplitMixer,
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
)

SHAPE = (2, 4, 3, 12)
OPTIONS = [*OTHER_OPTIONS, {"residual": True}]
PLAIN = {"activation": None, "normalization": None}

# Equal to the reference


@both_formats
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_full_mixer_equals_reference(options, data_format, rng, randomize):
    layer = ChannelMixer(data_format=data_format, **options)
    assert_equals_reference(reference.channel_mixer, layer, rng.normal(size=SHAPE), randomize, **options)


RULES = [
    {"segments": 1},
    {"segments": 2},
    {"segments": 5},  # 2, 2, 2, 2 and 4 channels
    {"segments": 12},
    {"segments": 3, "block": 0},
    {"segments": 3, "block": 5},
    {"segments": 5, "block": 4},
    {"segments": 3, "shared": True},
    {"segments": 3, "shuffle": True},
    {"segments": 2, "shared": True, "shuffle": True},
    {"segments": 4, "block": 1, "shuffle": True},
    {"segments": 1, "ratio": 0.5},
    {"segments": 2, "ratio": 2 / 3},
    {"segments": 2, "ratio": 0.6},  # 7 channels, from 0 and from 5
    {"segments": 2, "ratio": 1.0},
    {"segments": 3, "ratio": 0.5},
    {"segments": 4, "ratio": 0.45},  # 5 channels, from 0, 2, 4 and 7
    {"segments": 3, "ratio": 0.5, "shared": True},
    {"segments": 3, "ratio": 0.5, "block": 4},
    {"segments": 3, "ratio": 0.75, "shared": True, "shuffle": True},
    *({"segments": 3, "ratio": 0.5} | options for options in OPTIONS),
]


PAPER = [
    (ChannelSplitMixerI, {}, {"segments": 2, "ratio": 2 / 3, "block": 0}),
    (ChannelSplitMixerI, {"block": 1}, {"segments": 2, "ratio": 2 / 3, "block": 1}),
    (ChannelSplitMixerI, {"ratio": 0.6, "block": 7}, {"segments": 2, "ratio": 0.6, "block": 1}),
    (ChannelSplitMixerI, {"ratio": 4 / 7, "block": 2}, {"segments": 2, "ratio": 4 / 7, "block": 0}),
    (ChannelSplitMixerII, {}, {"segments": 2, "block": 0}),
    (ChannelSplitMixerII, {"segments": 5, "block": 4}, {"segments": 5, "block": 4}),
    (ChannelSplitMixerII, {"segments": 5, "block": 6}, {"segments": 5, "block": 1}),
    (ChannelSplitMixerIII, {}, {"segments": 2, "shared": True}),
    (ChannelSplitMixerIII, {"segments": 4}, {"segments": 4, "shared": True}),
    (ChannelSplitMixerIV, {}, {"segments": 2}),
    (ChannelSplitMixerIV, {"segments": 5}, {"segments": 5}),
    (ChannelSplitMixerV, {}, {"segments": 2, "ratio": 2 / 3}),
    (ChannelSplitMixerV, {"ratio": 0.6}, {"segments": 2, "ratio": 0.6}),
]


SPLIT = [*((ChannelSplitMixer, rule, rule) for rule in RULES), *PAPER]


@both_formats
@pytest.mark.parametrize(
    ("mixer", "arguments", "rule"), SPLIT, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_split_mixers_equal_the_reference(mixer, arguments, rule, data_format, rng, randomize):
    layer, x = mixer(data_format=data_format, **arguments), rng.normal(size=SHAPE)
    randomize(built(layer, SHAPE))
    uses = rule["segments"] if rule.get("shared") else 1
    kernels = [array(pointwise.kernel) for pointwise in layer.pointwise] * uses
    biases = [array(pointwise.bias) for pointwise in layer.pointwise] * uses
    rule = {name: value for name, value in rule.items() if name != "shared"}
    expected = functools.partial(reference.channel_split_mixer, x, kernels, biases, norm_of(layer.norm), **rule)
    assert_agrees(layer, x, expected, [layer.norm])


STRIDES = [
    {"kernel_size": 6, "stride": 6},
    {"kernel_size": 3, "stride": 3},
    {"kernel_size": 12, "stride": 12},
    {"kernel_size": 1, "stride": 1},
    {"kernel_size": 6, "stride": 3},
    {"kernel_size": 6, "stride": 2},
    {"kernel_size": 10, "stride": 1},
    {"kernel_size": 2, "stride": 5},  # leaves channels 2 to 4 and 7 to 9 unseen
    *({"kernel_size": 6, "stride": 2} | options for options in OPTIONS),
]


@both_formats
@pytest.mark.parametrize("arguments", STRIDES, ids=str)
def test_stride_mixer_equals_reference(arguments, data_format, rng, randomize):
    layer = ChannelStrideMixer(data_format=data_format, **arguments)
    options = {name: value for name, value in arguments.items() if name != "kernel_size"}
    assert_equals_reference(reference.channel_stride_mixer, layer, rng.normal(size=SHAPE), randomize, **options)


# Segments


@pytest.mark.parametrize(("ratio", "width"), [(2 / 3, 170), (3 / 5, 153), (4 / 7, 146), (5 / 9, 142), (6 / 11, 139)])
@pytest.mark.parametrize("mixer", [ChannelSplitMixerI, ChannelSplitMixerV])
def test_ratios_of_256_channels_truncate(mixer, ratio, width):
    for pointwise in built(mixer(ratio=ratio), (None, 4, 4, 256)).pointwise:
        assert pointwise.kernel.shape == (width, width)
        assert pointwise.bias.shape == (width,)


def written(layer, x):
    """Give the channels that a mixing without activation and norm changes."""
    return np.flatnonzero((run(layer, x) != np.asarray(x, "float32")).any(axis=(0, 1, 2))).tolist()


@pytest.mark.parametrize(
    ("mixer", "arguments", "start", "stop"),
    [
        *((ChannelSplitMixerI, {"block": block}, *[(0, 8), (4, 12)][block % 2]) for block in range(4)),
        *(
            (ChannelSplitMixerII, {"segments": 5, "block": block}, start, stop)
            for block, start, stop in [(0, 0, 2), (1, 2, 4), (4, 8, 12), (5, 0, 2), (9, 8, 12)]
        ),
    ],
)
def test_i_and_ii_mix_one_segment_after_the_other(mixer, arguments, start, stop, rng, randomize):
    layer = randomize(built(mixer(**arguments, **PLAIN), SHAPE))
    assert written(layer, rng.normal(size=SHAPE)) == list(range(start, stop))


@pytest.mark.parametrize("mixer", [ChannelSplitMixerI(), ChannelSplitMixerII()], ids=["I", "II"])
def test_activation_and_norm_act_on_unmixed_channels_too(mixer, rng, randomize):
    randomize(built(mixer, SHAPE))
    x = rng.normal(size=SHAPE)
    expected, _ = reference.batch_norm(reference.gelu(x), norm_of(mixer.norm), training=False)
    np.testing.assert_allclose(run(mixer, x)[..., 8:], expected[..., 8:], **TOLERANCE)


# Identities


def with_identity(kernel, bias, *norm):
    return [kernel, bias, np.eye(len(bias)), np.zeros(len(bias)), *norm]


SEGMENTS_SHUFFLED = functools.partial(ChannelSplitMixer, shared=True, shuffle=True)
SAME = {  # two layers, and the weights of the second from those of the first
    "stride over all channels": (ChannelMixer(), ChannelStrideMixer(12), lambda *weights: weights),
    "V, its second kernel an identity": (ChannelMixer(), ChannelSplitMixerV(ratio=1.0), with_identity),
    **{
        f"III shuffled, {n} segments": (SEGMENTS_SHUFFLED(n), ChannelStrideMixer(12 // n), lambda *weights: weights)
        for n in (1, 2, 3, 4, 6, 12)
    },
}


@pytest.mark.parametrize("case", SAME)
def test_mixers_that_are_the_same(case, rng, randomize):
    one, other, weights_of_other = SAME[case]
    randomize(built(one, SHAPE))
    built(other, SHAPE).set_weights(weights_of_other(*one.get_weights()))
    x = rng.normal(size=SHAPE)
    for training in (False, True):
        np.testing.assert_allclose(run(one, x, training), run(other, x, training), **TOLERANCE)


def test_v_is_i_on_the_first_segment_then_i_on_the_last(rng, randomize):
    v = randomize(built(ChannelSplitMixerV(**PLAIN), SHAPE))
    first, last = [built(ChannelSplitMixerI(block=block, **PLAIN), SHAPE) for block in (0, 1)]
    first.pointwise[0].set_weights(v.pointwise[0].get_weights())
    last.pointwise[0].set_weights(v.pointwise[1].get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(v, x), run(last, run(first, x)), **TOLERANCE)
    assert np.abs(run(v, x) - run(first, run(last, x))).max() > 0.1


# Flow of information between channels


def reached(layers, channel, rng, training=False):
    """Give the channels of the last layer's output that a change in one channel of the input reaches."""
    x = rng.normal(size=SHAPE)
    other = x.copy()
    other[0, 1, 2, channel] += 1
    for layer in layers:
        x, other = run(layer, x, training), run(layer, other, training)
    return np.flatnonzero((x != other).any(axis=(0, 1, 2))).tolist()


def blocks_of(mixer, blocks, randomize, **arguments):
    """Give one layer a block; I and II are told which block they are in."""
    told = mixer in (ChannelSplitMixerI, ChannelSplitMixerII)
    layers = [mixer(**arguments, **({"block": block} if told else {})) for block in range(blocks)]
    return [randomize(built(layer, SHAPE), seed) for seed, layer in enumerate(layers)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mixer", [ChannelSplitMixerII, ChannelSplitMixerIII, ChannelSplitMixerIV])
def test_ii_iii_and_iv_keep_information_within_segments(mixer, training, rng, randomize):
    layers = blocks_of(mixer, 6, randomize, segments=3)
    for channel, segment in [(0, range(0, 4)), (7, range(4, 8)), (8, range(8, 12))]:
        assert reached(layers, channel, rng, training) == list(segment)


SHUFFLED = {"segments": 3, "shared": True, "shuffle": True}


@pytest.mark.parametrize(
    ("mixer", "arguments", "blocks", "channel", "expected"),
    [
        (ChannelSplitMixerI, {}, 1, 0, range(8)),
        (ChannelSplitMixerI, {}, 2, 0, range(12)),
        (ChannelSplitMixerI, {}, 2, 11, range(4, 12)),
        (ChannelSplitMixerI, {}, 3, 11, range(12)),
        (ChannelSplitMixerV, {}, 1, 0, range(12)),
        (ChannelSplitMixerV, {}, 1, 11, range(4, 12)),
        (ChannelSplitMixerV, {}, 2, 11, range(12)),
        (ChannelSplitMixer, SHUFFLED, 1, 0, range(0, 12, 3)),
        (ChannelSplitMixer, SHUFFLED, 2, 0, range(12)),
    ],
)
def test_overlap_and_shuffle_pass_information_on(mixer, arguments, blocks, channel, expected, rng, randomize):
    layers = blocks_of(mixer, blocks, randomize, normalization=None, **arguments)
    assert reached(layers, channel, rng) == list(expected)


# Counts


def test_counts_of_parameters():
    dim, norm = 256, 2 * 256

    def full(width):
        return width**2 + width

    def count(layer, dim):
        return sum(np.prod(weight.shape) for weight in built(layer, (None, 4, 4, dim)).trainable_weights)

    assert count(ChannelMixer(), dim) == full(dim) + norm
    assert count(ChannelSplitMixerI(), dim) == full(170) + norm
    assert count(ChannelSplitMixerII(segments=2), dim) == full(128) + norm
    assert count(ChannelSplitMixerII(segments=3, block=2), dim) == full(86) + norm
    assert count(ChannelSplitMixerIII(segments=4), dim) == full(64) + norm
    assert count(ChannelSplitMixerIV(segments=3), dim) == 2 * full(85) + full(86) + norm
    assert count(ChannelSplitMixerV(), dim) == 2 * full(170) + norm
    assert count(ChannelSplitMixer(segments=4, ratio=0.5), dim) == 4 * full(128) + norm
    assert count(ChannelSplitMixer(segments=4, ratio=0.5, shared=True), dim) == full(128) + norm
    assert count(ChannelStrideMixer(128), dim) == 128 * 128 + 128 + norm
    assert count(ChannelStrideMixer(64, stride=64), dim) == 64 * 64 + 64 + norm
    assert count(ChannelStrideMixer(130, stride=18), dim) == 130 * 32 + 32 + norm  # 8 positions of 32 filters
