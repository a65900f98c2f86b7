"""Exports networks from every backend to every format, and keeps how each compares with its network.

    python docs/scripts/exports.py --data-dir FOLDER splitmixer_i_256_8:cifar10 convmixer_256_8_p2_k5:cifar10

writes docs/results/export.csv: each export of these networks, or of .keras files, is compared with its network on 2,000
test images of CIFAR-10, and 200 training images are the representative data of int8. `--format onnx` does so for one
format, `--quantization int8` for one kind of numbers. Other rows are kept. `--table` prints the CSV in Markdown.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_mixers.export import FORMATS, export_model

TABLE = Path(__file__).parents[1] / "results" / "export.csv"
COLUMNS = ("network", "network_top1", "backend", "format", "quantization", "difference", "agreement", "top1",
           "kilobytes", "milliseconds", "machine")  # fmt: skip
BACKENDS = ("jax", "tensorflow", "torch")
CASES = {name: ("", *format.quantizations) for name, format in FORMATS.items()}


def rows_of(path, data_dir, formats, only=None):
    """Returns the rows of one network on the running backend, a dictionary each."""
    import keras

    from keras_mixers.data import load_tfds
    from keras_mixers.environment import describe_environment
    from keras_mixers.inference import load_trained

    def images(split, count):
        pairs = load_tfds("cifar10", split, data_dir, limit=count).examples.as_numpy_iterator()
        return map(list, zip(*pairs, strict=True))

    model = load_trained(path)
    test_images, labels = images("test", 2000)
    representative, _ = images("train", 200)
    for format in formats:
        for quantization in CASES[format]:
            if only not in (None, quantization):
                continue
            with tempfile.TemporaryDirectory() as folder:
                report = export_model(
                    model,
                    Path(folder, "network" + FORMATS[format].suffix),
                    format,
                    quantization=quantization or None,
                    representative_data=representative if quantization == "int8" else None,
                    images=test_images,
                    labels=labels,
                    tolerance=1 if quantization == "int8" else None,  # its difference is measured, not refused
                )
            values = (
                model.name,
                f"{100 * report.original_accuracy:.2f}",
                keras.backend.backend(),
                format,
                quantization,
                f"{report.max_difference:.1e}",
                f"{100 * report.agreement:.2f}",
                f"{100 * report.accuracy:.2f}",
                f"{report.bytes / 1000:.0f}",
                f"{1000 * report.latency:.2f}",
                describe_environment(),
            )
            yield dict(zip(COLUMNS, map(str, values), strict=True))


def read():
    """Returns the rows of the CSV, each a dictionary."""
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def markdown(rows):
    """Returns a row of each network and kind of file: the worst comparison of all backends, the rest of PyTorch's."""
    lines = [
        "| network | format | numbers | difference | agreement (%) | top-1 (%) | size (kB) | ms |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row["backend"] == "torch":
            same = [
                other for other in rows if all(other[key] == row[key] for key in ("network", "format", "quantization"))
            ]
            assert {other["backend"] for other in same} == set(BACKENDS)
            worst = max((other["difference"] for other in same), key=float)
            agreement = min((other["agreement"] for other in same), key=float)
            lines.append(
                f"| `{row['network']}` ({row['network_top1']}) | {row['format']} | "
                f"{row['quantization'] or 'float32'} | {worst} | {agreement} | {row['top1']} | {row['kilobytes']} | "
                f"{row['milliseconds']} |"
            )
    return "\n".join(lines)


def main():
    """Writes the table, or prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="MODEL.keras")
    parser.add_argument("--data-dir")
    parser.add_argument("--format", choices=CASES, help="only this one")
    parser.add_argument("--quantization", help="only this one")
    parser.add_argument("--table", action="store_true", help="print the CSV in Markdown")
    parser.add_argument("--rows", action="store_true", help="print the rows of the running backend")
    arguments = parser.parse_args()
    if arguments.table:
        print(markdown(read()))
    elif arguments.rows:
        for network in arguments.networks:
            formats = [arguments.format] if arguments.format else CASES
            csv.DictWriter(sys.stdout, COLUMNS).writerows(
                rows_of(network, arguments.data_dir, formats, arguments.quantization)
            )
    else:
        rows = {_key(row): row for row in read()}
        for backend in BACKENDS:
            command = [sys.executable, __file__, "--rows", *arguments.networks]
            command += ["--data-dir", arguments.data_dir] if arguments.data_dir else []
            command += ["--format", arguments.format] if arguments.format else []
            command += ["--quantization", arguments.quantization] if arguments.quantization else []
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows |= {_key(row): row for row in csv.DictReader(done.stdout.splitlines(), COLUMNS)}
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())


def _key(row):
    return row["network"], row["backend"], row["format"], row["quantization"]


if __name__ == "__main__":
    main()
