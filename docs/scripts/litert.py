"""Times SplitMixer-I-256/8 and ConvMixer-256/8 in LiteRT, folded and not, in float32 and int8, side by side.

    KERAS_BACKEND=tensorflow python docs/scripts/litert.py

writes docs/results/litert.csv and prints it in Markdown: milliseconds for one image of 32 x 32 pixels, the median
of rounds in which all networks take turns, and the operations of each. Weights do not matter here: they are random,
norms included.

    KERAS_BACKEND=tensorflow python docs/scripts/litert.py --blocks

compares kernels of 7 x 7 in blocks with whole ones, at 224 x 224 pixels and on one thread, in docs/results/blocks.csv.
"""

import argparse
import collections
import csv
import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_mixers
from keras_mixers.environment import describe_environment
from keras_mixers.export import litert
from keras_mixers.export.comparison import drawn_images

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("network", "form", "threads", "milliseconds", "lower_quartile", "upper_quartile", "kilobytes", "operations",
           "norms", "machine")  # fmt: skip
FORMS = {
    "plain": {"fold": False},
    "folded": {},
    "plain int8": {"fold": False, "quantization": "int8"},
    "folded int8": {"quantization": "int8"},
}
NETWORKS = {"SplitMixer-I-256/8": "splitmixer_i_256_8", "ConvMixer-256/8": "convmixer_256_8_p2_k5"}
ROUNDS, CALLS = 40, 20
LARGE = {"ConvMixer-256/8": (256, 8, "gelu"), "ConvMixer-768/32": (768, 32, "relu")}


def with_random_norms(model):
    """Returns the model with norms like a trained network's: those of a new one, 1 and 0, cost nothing."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def operations(path):
    """Counts the operations, and those that norms have left."""
    plain = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    details = plain._get_ops_details()
    shapes = {tensor["index"]: tuple(tensor["shape"]) for tensor in plain.get_tensor_details()}
    counts = collections.Counter(operation["op_name"] for operation in details)
    # A product, a sum with one value per channel, or a 1 x 1 depthwise convolution.
    multiplies = counts["MUL"] + sum(
        operation["op_name"] == "DEPTHWISE_CONV_2D" and shapes[operation["inputs"][1]][1:3] == (1, 1)
        for operation in details
    )
    adds = sum(
        operation["op_name"] == "ADD"
        and any(len(shapes[i]) < 4 or shapes[i][1:3] == (1, 1) for i in operation["inputs"])
        for operation in details
    )
    return sum(counts.values()), multiplies + adds


def markdown(rows):
    """Returns the rows of the CSV as a table, a row for each network and form."""
    lines = [
        "| network | form | ms, 1 thread | ms, 2 threads | size (kB) | operations | of norms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            f"| {one['network']} | {one['form']} | {float(one['milliseconds']):.2f} | "
            f"{float(two['milliseconds']):.2f} | {one['kilobytes']} | {one['operations']} | {one['norms']} |"
        )
    return "\n".join(lines)


def compare_blocks():
    """Writes docs/results/blocks.csv: the milliseconds of a call in time of the processor, whole kernels and blocks."""
    images = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype("float32")
    rows = []
    for network, (dim, depth, activation) in LARGE.items():
        model = with_random_norms(
            keras_mixers.ConvMixer(dim, depth, 7, 7, activation=activation, input_shape=(224, 224, 3))
        )
        for quantization in (None, "int8"):
            interpreters, times = {}, collections.defaultdict(list)
            for form, taps in (("blocks", litert.DEPTHWISE_TAPS), ("whole", None)):
                with tempfile.TemporaryDirectory() as folder, mock.patch.object(litert, "DEPTHWISE_TAPS", taps):
                    path = Path(folder, "network.tflite")
                    keras_mixers.export_model(
                        model, path, batch_size=1, quantization=quantization, images=images, tolerance=9,
                        representative_data=images if quantization else None,
                    )  # fmt: skip
                    interpreter = interpreters[form] = Interpreter(model_content=path.read_bytes(), num_threads=1)
                interpreter.allocate_tensors()
                interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
                interpreter.invoke()
            for _ in range(9):
                for form, interpreter in interpreters.items():
                    start = time.thread_time()
                    interpreter.invoke()
                    times[form].append(1000 * (time.thread_time() - start))
            whole, blocks = (statistics.median(times[form]) for form in ("whole", "blocks"))
            rows.append((network, quantization or "float32", f"{whole:.1f}", f"{blocks:.1f}", f"{blocks / whole:.2f}"))
    with (RESULTS / "blocks.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("network", "numbers", "whole", "blocks", "ratio", "machine"))
        writer.writerows((*row, describe_environment()) for row in rows)
    print("| network | numbers | whole (ms) | blocks (ms) | ratio |\n| --- | --- | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def compare_forms():
    """Writes docs/results/litert.csv."""
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    rows, times, interpreters = {}, collections.defaultdict(list), {}
    with tempfile.TemporaryDirectory() as folder:
        for network, preset in NETWORKS.items():
            model = with_random_norms(keras_mixers.create_model(preset, input_shape=(32, 32, 3)))
            for form, arguments in FORMS.items():
                path = Path(folder, f"{preset} {form}.tflite")
                more = {"representative_data": drawn_images(), "tolerance": 9} if "int8" in form else {}
                report = keras_mixers.export_model(model, path, batch_size=1, **arguments, **more)
                count, norms = operations(path)
                for threads in (1, 2):
                    interpreter = interpreters[network, form, threads] = Interpreter(str(path), num_threads=threads)
                    interpreter.allocate_tensors()
                    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
                    rows[network, form, threads] = (f"{report.bytes / 1000:.0f}", count, norms)
        for i in range(ROUNDS + 2):
            for key, interpreter in interpreters.items():
                interpreter.invoke()
                start = time.perf_counter()
                for _ in range(CALLS):
                    interpreter.invoke()
                if i > 1:
                    times[key].append(1000 * (time.perf_counter() - start) / CALLS)
    with (RESULTS / "litert.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for key, of_key in times.items():
            lower, _, upper = statistics.quantiles(of_key, n=4)
            middle = statistics.median(of_key)
            writer.writerow((*key, f"{middle:.3f}", f"{lower:.3f}", f"{upper:.3f}", *rows[key], describe_environment()))
    with (RESULTS / "litert.csv").open(newline="") as file:
        print(markdown(list(csv.DictReader(file))))


def main():
    """Writes one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", action="store_true", help="compare blocks of large kernels with whole ones")
    if parser.parse_args().blocks:
        compare_blocks()
    else:
        compare_forms()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
