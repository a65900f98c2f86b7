"""docs/published_counts.md, recomputed: counts with `profile`, arithmetic from the page itself."""

import functools
import math
import re
from pathlib import Path

import pytest

import keras_mixers
from keras_mixers import layers
from keras_mixers.profiling import profile, without_values

pytestmark = pytest.mark.backend_independent

PAGE = (Path(__file__).parents[2] / "docs" / "published_counts.md").read_text()

COUNTS = {"parameters": "params", "MACs": "macs", "published FLOPs": "published_flops"}
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}

# Parameters in thousands, as ConvMixer's Table 4 prints them.
TABLE_4 = {
    "convmixer_128_4_p1_k8": 103, "convmixer_128_8_p1_k8": 205, "convmixer_128_12_p1_k8": 306,
    "convmixer_256_4_p1_k8": 338, "convmixer_256_8_p1_k8": 672, "convmixer_256_12_p1_k8": 1006,
    "convmixer_256_16_p1_k8": 1339, "convmixer_256_20_p1_k8": 1673,
    "convmixer_256_8_p1_k3": 559, "convmixer_256_8_p1_k5": 592, "convmixer_256_8_p1_k7": 641,
    "convmixer_256_8_p1_k9": 707, "convmixer_256_8_p1_k11": 788, "convmixer_256_8_p1_k13": 887,
    "convmixer_256_8_p1_k15": 1001,
    "convmixer_256_8_p2_k3": 561, "convmixer_256_8_p2_k5": 594, "convmixer_256_8_p2_k7": 643,
    "convmixer_256_8_p2_k9": 709, "convmixer_256_8_p2_k11": 791,
    "convmixer_256_8_p4_k9": 718,
    "convmixer_256_8_p8_k9": 755,
}  # fmt: skip


def tables():
    """Give (heading of the section, table), a table being the rows of its cells, the column names first."""
    heading, table, found = "", [], []
    for line in [*PAGE.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            found.append((heading, [row for row in table if not set(row[0]) <= {"-"}]))
            table = []
        if line.startswith("#"):
            heading = line
    return found


def rows(column):
    """Give (heading, row by column name) of the tables that have this column."""
    return [
        (heading, dict(zip(names, row, strict=True)))
        for heading, (names, *table) in tables()
        for row in table
        if column in names
    ]


def number(text):
    return int(re.fullmatch(r"\d{1,3}(,\d{3})*", text).group().replace(",", ""))


def one_d_and_full(kernel_size, patch_size, num_classes):
    return keras_mixers.IsotropicMixer(
        256, 8, patch_size, num_classes,
        spatial_mixer=lambda block, **shared: layers.SpatialMixer1D(kernel_size, **shared),
        channel_mixer=lambda block, **shared: layers.ChannelMixer(**shared),
    )  # fmt: skip


@functools.cache
def profile_of(network, side, num_classes=None, kernel_size=None, patch_size=None):
    """Profile what a cell names: a model of the table, a call of a builder, or the network of mixed mixers."""

    def make():
        if not network.startswith("`"):
            return one_d_and_full(kernel_size, patch_size, num_classes)
        code = network.strip("`")
        if "(" in code:
            return eval(code, vars(keras_mixers))
        return keras_mixers.create_model(code, **({"num_classes": num_classes} if num_classes else {}))

    model = without_values(make)
    return profile(model, [channels or side for channels in model.input_shape[1:]])


def profiles_of(heading, network):
    """Profile the network as the heading has it, once for each number of classes."""
    side = int(re.search(r"(\d+) × \1", heading).group(1))
    classes = re.search(r"(?:(\d+) and )?(\d+) classes", heading)
    sizes = {name: re.search(rf"{name} size (\d+)", heading) for name in ("kernel", "patch")}
    sizes = {f"{name}_size": int(size.group(1)) for name, size in sizes.items() if size}
    if classes is None:
        return [profile_of(network, side)]
    return [profile_of(network, side, int(each), **sizes) for each in classes.groups() if each]


def exact(heading, row):
    """Give the counts of a row as the mean over the heading's numbers of classes."""
    found = profiles_of(heading, row["network"])
    return {column: sum(getattr(each, name) for each in found) / len(found) for column, name in COUNTS.items()}


def mark(printed, count):
    """Give the mark of a printed figure such as "0.33 G", which says how it came from the count."""
    digits, unit = printed.split()
    step = UNITS[unit] / 10 ** len(digits.partition(".")[2])
    value = float(digits) * UNITS[unit]
    if abs(count - value) <= step / 2:
        return ""
    return "↓" if value <= count < value + step else "✗"


def test_every_count():
    assert len(rows("MACs")) == 41
    for heading, row in rows("MACs"):
        counts = exact(heading, row)
        assert {column: number(row[column]) for column in COUNTS} == counts, row


def test_every_printed_figure_is_marked_for_what_it_is():
    marks = []
    for heading, row in rows("MACs"):
        counts = exact(heading, row)
        for column, count in (("printed parameters", "parameters"), ("printed FLOPs", "published FLOPs")):
            for figure in filter(None, row[column].split(", ")):
                printed, _, given = re.fullmatch(r"([\d.]+ [KMG])( ([↓✗]))?", figure).groups("")
                assert given == mark(printed, counts[count]), (row["network"], figure)
                marks.append((printed, given))
    assert [printed for printed, given in marks if given == "✗"] == ["0.34 G", "0.33 G", "20.2 M", "0.15 G", "1670 K"]
    assert len(marks) == 50


def test_convmixers_table_4_is_exact():
    for name, thousands in TABLE_4.items():
        assert round(profile_of(f"`{name}`", 32).params / 1000) == thousands, name


def test_the_printed_flops_of_table_2_are_those_of_small_images():
    for name, printed in (("convmixer_768_32", "0.33 G"), ("splitmixer_i_768_32", "0.15 G")):
        assert mark(printed, profile_of(f"`{name}`", 32).published_flops) == ""
        assert mark(printed, profile_of(f"`{name}`", 224).published_flops) == "✗"


def value(arithmetic):
    expression = re.sub(r",(?=\d{3})", "", arithmetic).replace("·", "*").replace("−", "-")
    assert re.fullmatch(r"[\d\s+*/()-]+", expression), arithmetic
    return eval(expression)


def test_all_arithmetic():
    known = {number(row[column]) for _, row in rows("MACs") for column in COUNTS}
    for _, row in rows("arithmetic"):
        decimals = len(row["result"].partition(".")[2])
        assert f"{value(row['arithmetic']):,.{decimals}f}" == row["result"], row
        # Counts that it starts from stand on this page themselves.
        assert {number(text) for text in re.findall(r"\d{1,3}(?:,\d{3}){2,}", row["arithmetic"])} <= known, row
        if not decimals:
            known.add(number(row["result"]))


def test_arithmetic_gives_the_counts():
    counted = [row for _, row in rows("arithmetic") if "network, image: count" in row]
    assert len(counted) == 11
    for row in counted:
        network, side, column = re.fullmatch(r"(`.*`), (\d+) × \2: (.*)", row["network, image: count"]).groups()
        assert number(row["result"]) == getattr(profile_of(network, int(side)), COUNTS[column]), row


def test_arithmetic_gives_the_sizes_of_the_kernels():
    found = [row for _, row in rows("arithmetic") if "layer" in row]
    assert len(found) == 2
    for row in found:
        layer = eval(row["layer"].strip("`")[:-1] + ", data_format='channels_last')", vars(layers))
        layer.build((None, 16, 16, 256))
        kernels = [weight.shape for weight in layer.trainable_weights if len(weight.shape) > 1]
        assert sum(map(math.prod, kernels)) == number(row["result"])


# What may stand in a sentence: places in the papers, names of networks and settings. All other figures are in tables.
NO_COUNTS = (
    r"Tables? \d( and (Table )?\d)?|Section \d\.\d|Eq\. \d|Appendix B\.1|CIFAR-\d+|3D|\d+/\d\d|32 × 32"
    r"|(patch|kernel) size \d+"
)


def test_no_figure_stands_outside_the_tables():
    sentences = " ".join(line for line in PAGE.splitlines() if not line.startswith(("|", "#")))
    unchecked = re.sub(NO_COUNTS, "", re.sub(r"`[^`]*`", "", sentences))
    assert not re.search(r".{0,40}\d.{0,40}", unchecked), re.search(r".{0,40}\d.{0,40}", unchecked)


def test_marks():
    counts = (324_999_999, 325_000_000, 327_026_688, 339_999_999, 340_000_000)
    assert [mark("0.33 G", count) for count in counts] == ["✗", "", "", "↓", "✗"]
    assert mark("76 K", 76_554) == "↓"
