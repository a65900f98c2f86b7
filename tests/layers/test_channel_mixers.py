import numpy as np
import pytest
import reference
from agreement import TOLERANCE, array, assert_agrees, assert_equals_reference, both_formats, built, norm_of, run

from keras_mixers.layers import (
    ChannelMixer,
    ChannelSplitMixer,
    ChannelSplitMixerI,
    ChannelSplitMixerII,
    ChannelSplitMixerIII,
    ChannelSplitMixerIV,
    ChannelSplitMixerV,
    ChannelStrideMixer,
    PatchEmbed,
    SpatialMixer1D,
    SpatialMixer2D,
)

SHAPE = (2, 4, 3, 12)

OPTIONS = [
    {"activation": "relu"},
    {"activation": None},
    {"normalization": "layer"},
    {"normalization": None},
    {"residual": True},
]

PLAIN = {"activation": None, "normalization": None}

other_options = pytest.mark.parametrize("options", OPTIONS, ids=str)


def count(layer, dim):
    return sum(np.prod(weight.shape) for weight in built(layer, (None, 4, 4, dim)).trainable_weights)


# Equal to the reference


def assert_split_equals_reference(layer, x, randomize, *, shared=False, **options):
    randomize(built(layer, x.shape))
    kernels = [array(mixer.kernel) for mixer in layer.pointwise]
    biases = [array(mixer.bias) for mixer in layer.pointwise]
    if shared:
        kernels, biases = kernels * options["segments"], biases * options["segments"]
    norm = norm_of(layer.norm)
    assert_agrees(
        layer,
        x,
        lambda training: reference.channel_split_mixer(x, kernels, biases, norm, training=training, **options),
        [layer.norm],
    )


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
]


@both_formats
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_split_mixer_equals_reference(rule, data_format, rng, randomize):
    layer = ChannelSplitMixer(data_format=data_format, **rule)
    assert_split_equals_reference(layer, rng.normal(size=SHAPE), randomize, **rule)


@both_formats
@other_options
def test_split_mixer_equals_reference_with_other_options(options, data_format, rng, randomize):
    rule = {"segments": 3, "ratio": 0.5} | options
    layer = ChannelSplitMixer(data_format=data_format, **rule)
    assert_split_equals_reference(layer, rng.normal(size=SHAPE), randomize, **rule)


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


@both_formats
@pytest.mark.parametrize(("mixer", "arguments", "rule"), PAPER, ids=str)
def test_the_papers_mixers_equal_the_reference(mixer, arguments, rule, data_format, rng, randomize):
    layer = mixer(data_format=data_format, **arguments)
    assert_split_equals_reference(layer, rng.normal(size=SHAPE), randomize, **rule)


STRIDES = [
    {"kernel_size": 6, "stride": 6},
    {"kernel_size": 3, "stride": 3},
    {"kernel_size": 12, "stride": 12},
    {"kernel_size": 1, "stride": 1},
    {"kernel_size": 6, "stride": 3},
    {"kernel_size": 6, "stride": 2},
    {"kernel_size": 10, "stride": 1},
    {"kernel_size": 2, "stride": 5},  # leaves channels 2 to 4 and 7 to 9 unseen
]


@both_formats
@pytest.mark.parametrize("sizes", STRIDES, ids=str)
def test_stride_mixer_equals_reference(sizes, data_format, rng, randomize):
    layer = ChannelStrideMixer(data_format=data_format, **sizes)
    assert_equals_reference(
        reference.channel_stride_mixer, layer, rng.normal(size=SHAPE), randomize, stride=sizes["stride"]
    )


@both_formats
@other_options
def test_stride_mixer_equals_reference_with_other_options(options, data_format, rng, randomize):
    layer = ChannelStrideMixer(6, stride=2, data_format=data_format, **options)
    assert_equals_reference(
        reference.channel_stride_mixer, layer, rng.normal(size=SHAPE), randomize, stride=2, **options
    )


# Segments


@pytest.mark.parametrize(("ratio", "width"), [(2 / 3, 170), (3 / 5, 153), (4 / 7, 146), (5 / 9, 142), (6 / 11, 139)])
@pytest.mark.parametrize("mixer", [ChannelSplitMixerI, ChannelSplitMixerV])
def test_ratios_of_256_channels_truncate(mixer, ratio, width):
    for pointwise in built(mixer(ratio=ratio), (None, 4, 4, 256)).pointwise:
        assert pointwise.kernel.shape == (width, width)
        assert pointwise.bias.shape == (width,)


def test_last_of_three_segments_of_256_channels_takes_the_remainder():
    widths = [85, 85, 86]
    layer = built(ChannelSplitMixerIV(segments=3), (None, 4, 4, 256))
    assert [pointwise.kernel.shape for pointwise in layer.pointwise] == [(width, width) for width in widths]
    for block in range(5):
        (pointwise,) = built(ChannelSplitMixerII(segments=3, block=block), (None, 4, 4, 256)).pointwise
        assert pointwise.kernel.shape == (widths[block % 3], widths[block % 3])


@both_formats
def test_weights_have_the_same_shapes_in_both_formats(data_format):
    def shapes(layer):
        return [weight.shape for weight in built(layer, (None, 4, 3, 12)).trainable_weights]

    norm = [(12,), (12,)]
    assert shapes(ChannelMixer(data_format=data_format)) == [(12, 12), (12,), *norm]
    assert shapes(ChannelSplitMixerI(data_format=data_format)) == [(8, 8), (8,), *norm]
    assert shapes(ChannelStrideMixer(6, stride=2, data_format=data_format)) == [(6, 3), (3,), *norm]


def written(layer, x):
    """Give the channels that a mixing without activation and norm changes."""
    return np.flatnonzero((run(layer, x) != np.asarray(x, "float32")).any(axis=(0, 1, 2))).tolist()


@pytest.mark.parametrize("block", range(4))
def test_i_mixes_the_first_and_the_last_segment_in_turn(block, rng, randomize):
    layer = randomize(built(ChannelSplitMixerI(block=block, **PLAIN), SHAPE))
    expected = range(0, 8) if block % 2 == 0 else range(4, 12)
    assert written(layer, rng.normal(size=SHAPE)) == list(expected)


@pytest.mark.parametrize(("block", "start", "stop"), [(0, 0, 2), (1, 2, 4), (4, 8, 12), (5, 0, 2), (9, 8, 12)])
def test_ii_mixes_one_segment_after_the_other(block, start, stop, rng, randomize):
    layer = randomize(built(ChannelSplitMixerII(segments=5, block=block, **PLAIN), SHAPE))
    assert written(layer, rng.normal(size=SHAPE)) == list(range(start, stop))


@pytest.mark.parametrize("mixer", [ChannelSplitMixerI(), ChannelSplitMixerII()], ids=["I", "II"])
def test_activation_and_norm_act_on_unmixed_channels_too(mixer, rng, randomize):
    randomize(built(mixer, SHAPE))
    x = rng.normal(size=SHAPE)
    expected, _ = reference.batch_norm(reference.gelu(x), norm_of(mixer.norm), training=False)
    np.testing.assert_allclose(run(mixer, x)[..., 8:], expected[..., 8:], **TOLERANCE)


# Identities


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("training", [False, True])
def test_stride_mixer_over_segments_is_iii_with_a_shuffle(segments, training, rng, randomize):
    stride_mixer = randomize(built(ChannelStrideMixer(12 // segments), SHAPE))
    split_mixer = built(ChannelSplitMixer(segments=segments, shared=True, shuffle=True), SHAPE)
    split_mixer.pointwise[0].kernel.assign(stride_mixer.pointwise.kernel)
    split_mixer.pointwise[0].bias.assign(stride_mixer.pointwise.bias)
    split_mixer.norm.set_weights(stride_mixer.norm.get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(stride_mixer, x, training), run(split_mixer, x, training), **TOLERANCE)


def test_stride_mixer_over_all_channels_is_the_full_mixer(rng, randomize):
    stride_mixer, full = built(ChannelStrideMixer(12), SHAPE), randomize(built(ChannelMixer(), SHAPE))
    stride_mixer.pointwise.kernel.assign(full.pointwise.kernel)
    stride_mixer.pointwise.bias.assign(full.pointwise.bias)
    stride_mixer.norm.set_weights(full.norm.get_weights())
    x = rng.normal(size=SHAPE)
    np.testing.assert_allclose(run(stride_mixer, x), run(full, x), **TOLERANCE)


def test_v_with_all_channels_and_an_identity_second_kernel_is_the_full_mixer(rng, randomize):
    full, split = randomize(built(ChannelMixer(), SHAPE)), built(ChannelSplitMixerV(ratio=1.0), SHAPE)
    first, second = split.pointwise
    first.kernel.assign(full.pointwise.kernel)
    first.bias.assign(full.pointwise.bias)
    second.kernel.assign(np.eye(12))
    second.bias.assign(np.zeros(12))
    split.norm.set_weights(full.norm.get_weights())
    x = rng.normal(size=SHAPE)
    for training in (False, True):
        np.testing.assert_allclose(run(split, x, training), run(full, x, training), **TOLERANCE)


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


def test_i_passes_information_on_from_the_second_block(rng, randomize):
    assert reached(blocks_of(ChannelSplitMixerI, 1, randomize, normalization=None), 0, rng) == list(range(8))
    assert reached(blocks_of(ChannelSplitMixerI, 2, randomize, normalization=None), 0, rng) == list(range(12))
    assert 0 not in reached(blocks_of(ChannelSplitMixerI, 2, randomize, normalization=None), 11, rng)
    assert reached(blocks_of(ChannelSplitMixerI, 3, randomize, normalization=None), 11, rng) == list(range(12))


def test_v_passes_information_on_from_the_first_channel_at_once_and_from_the_last_in_two_blocks(rng, randomize):
    assert reached(blocks_of(ChannelSplitMixerV, 1, randomize, normalization=None), 0, rng) == list(range(12))
    assert reached(blocks_of(ChannelSplitMixerV, 1, randomize, normalization=None), 11, rng) == list(range(4, 12))
    assert reached(blocks_of(ChannelSplitMixerV, 2, randomize, normalization=None), 11, rng) == list(range(12))


def test_the_shuffle_passes_information_on_from_the_second_block(rng, randomize):
    arguments = {"segments": 3, "shared": True, "shuffle": True, "normalization": None}
    assert len(reached(blocks_of(ChannelSplitMixer, 1, randomize, **arguments), 0, rng)) == 4
    assert reached(blocks_of(ChannelSplitMixer, 2, randomize, **arguments), 0, rng) == list(range(12))


# Counts


def test_counts_of_parameters():
    dim, norm = 256, 2 * 256

    def full(width):
        return width**2 + width

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


@pytest.mark.parametrize(
    ("spatial", "channel", "published"),
    [
        (SpatialMixer2D, lambda block: ChannelMixer(), 594_186),
        (SpatialMixer1D, lambda block: ChannelMixer(), 569_610),
        (SpatialMixer1D, lambda block: ChannelSplitMixerI(block=block), 275_834),
        (SpatialMixer1D, lambda block: ChannelSplitMixerII(block=block), 175_370),
        (SpatialMixer1D, lambda block: ChannelSplitMixerIII(), 175_370),
        (SpatialMixer1D, lambda block: ChannelSplitMixerIII(segments=4), 76_554),
        (SpatialMixer1D, lambda block: ChannelSplitMixerIV(), 307_466),
        (SpatialMixer1D, lambda block: ChannelSplitMixerV(), 508_394),
        (SpatialMixer1D, lambda block: ChannelStrideMixer(128), 175_370),
    ],
)
def test_layers_add_up_to_the_papers_networks(spatial, channel, published):
    """256 channels, 8 blocks, patches of 2 x 2, kernels of 5 and a head of 10 classes."""
    embed = built(PatchEmbed(256, 2), (None, 32, 32, 3)).count_params() - 2 * 256  # without the moving statistics
    blocks = sum(count(spatial(5), 256) + count(channel(block), 256) for block in range(8))
    head = 256 * 10 + 10
    assert embed + blocks + head == published
