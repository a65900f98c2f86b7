"""What the page on exports says is what its CSVs hold, and these are what export promises."""

import csv
import importlib.util
from pathlib import Path

import pytest

import keras_mixers

pytestmark = pytest.mark.backend_independent
DOCS = Path(__file__).parents[2] / "docs"


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_backend_format_and_quantization():
    export = script("exports")
    rows = export.read()
    assert {(row["backend"], row["format"], row["quantization"]) for row in rows} == {
        (backend, format, quantization)
        for backend in export.BACKENDS
        for format, quantizations in export.CASES.items()
        for quantization in quantizations
    }
    assert len({row["network"] for row in rows}) == 2
    assert export.markdown(rows) in (DOCS / "export.md").read_text()
    for row in rows:
        if row["quantization"] in ("", "float16"):
            assert float(row["difference"]) <= (1e-2 if row["quantization"] else 1e-5)


@pytest.mark.parametrize("network", ["convmixer_256_8_p2_k5", "splitmixer_i_256_8"])
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_int8_loses_at_most_half_a_point(network, format):
    found = {"network": network, "format": format, "quantization": "int8"}
    rows = [row for row in script("exports").read() if row.items() >= found.items()]
    assert len(rows) == 3
    assert all(float(row["network_top1"]) - float(row["top1"]) <= 0.5 for row in rows)


def test_page_says_what_smaller_numbers_cost():
    page = " ".join((DOCS / "export.md").read_text().split())
    lost = {}
    for row in script("exports").read():
        key = row["network"].split("_")[0], row["format"], row["quantization"]
        lost[key] = max(lost.get(key, 0), float(row["network_top1"]) - float(row["top1"]))
    split, conv = (
        [lost[kind, format, "int8"] for format in ("litert", "onnx")] for kind in ("splitmixer", "convmixer")
    )
    assert (
        "At 93 % int8 costs the SplitMixer {:.2f} points in LiteRT and {:.2f} in ONNX, the ConvMixer {:.2f} and "
        "{:.2f}; eight-bit weights alone cost {:.2f} points at most, and float16 {:.2f}."
    ).format(
        *split,
        *conv,
        max(points for (_, _, quantization), points in lost.items() if quantization == "dynamic"),
        max(points for (_, _, quantization), points in lost.items() if quantization == "float16"),
    ) in page


def test_sizes_that_the_page_tells_are_the_tables():
    page = " ".join((DOCS / "export.md").read_text().split())
    parts = {}
    for row in script("exports").read():
        if row["backend"] == "torch":
            parts[row["network"], row["format"], row["quantization"]] = int(row["kilobytes"])
    found = [
        f"{100 * parts[network, format, 'int8'] / parts[network, format, '']:.0f} %"
        for format in ("litert", "onnx")
        for network in ("convmixer_256_8_p2_k5", "splitmixer_i_256_8")
    ]
    assert "In LiteRT it takes {} of a ConvMixer's bytes and {} of a SplitMixer's".format(*found) in page
    assert "it is {} and {}.".format(*found[2:]) in page


def test_litert():
    litert = script("litert")
    with (DOCS / "results" / "litert.csv").open(newline="") as file:
        rows = {(row["network"], row["form"], row["threads"]): row for row in csv.DictReader(file)}
    page = (DOCS / "export.md").read_text()
    assert litert.markdown(list(rows.values())) in page
    for network in litert.NETWORKS:
        for threads in ("1", "2"):
            plain, folded = (rows[network, form, threads] for form in ("plain", "folded"))
            assert int(folded["norms"]) <= int(plain["norms"]) / 2
            assert float(folded["milliseconds"]) <= float(plain["milliseconds"])


def test_blocks_take_at_most_half_of_the_time():
    with (DOCS / "results" / "blocks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["network"], row["numbers"]) for row in rows} == {
        (network, numbers) for network in script("litert").LARGE for numbers in ("float32", "int8")
    }
    page = (DOCS / "export.md").read_text()
    for row in rows:
        assert float(row["blocks"]) <= 0.5 * float(row["whole"])
        columns = ("network", "numbers", "whole", "blocks", "ratio")
        assert f"| {' | '.join(row[name] for name in columns)} |" in page


def test_int8_of_the_other_networks_with_weights():
    with (DOCS / "results" / "int8.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    networks = {row["network"] for row in rows} | {row["network"] for row in script("exports").read()}
    assert networks == {
        name for name in keras_mixers.list_models() if "cifar10" in keras_mixers.get_preset(name).weights
    }
    top1 = {(row["network"], row["format"]): row["top1"] for row in rows}
    lines = [
        f"| `{row['network']}` | {row['network_top1']} | {row['top1']} | {top1[row['network'], 'onnx']} |"
        for row in rows
        if row["format"] == "litert"
    ]
    assert "\n".join(lines) in (DOCS / "export.md").read_text()
    assert all(float(row["network_top1"]) - float(row["top1"]) <= 1.5 for row in rows)
