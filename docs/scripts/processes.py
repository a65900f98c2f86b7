"""How fast PyTorch trains in several processes of one thread, against one process with as many threads.

    KERAS_BACKEND=torch python docs/scripts/processes.py

trains SplitMixer-I-256/8 on drawn images of 32 x 32, in float32 and bfloat16, on all cores of this machine in turn in
both ways, and prints the images per second of each way's fastest epoch, the first one left out. It writes them to
docs/benchmarks/processes.csv.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CSV = Path(__file__).parents[1] / "benchmarks" / "processes.csv"
IMAGES, EPOCHS = 2048, 3


def train(directory: str, precision: str, batch_size: int) -> None:
    """Trains in one of the processes that `torchrun` has started."""
    import numpy as np
    import tensorflow as tf

    from keras_mixers.data import Images
    from keras_mixers.training import fit, get_recipe

    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (IMAGES, 32, 32, 3)).astype("uint8"), rng.integers(0, 10, IMAGES)
    images = Images(tf.data.Dataset.from_tensor_slices(arrays), IMAGES, tuple("0123456789"))
    changes = {"epochs": EPOCHS, "batch_size": batch_size, "precision": precision, "augmentation.rand_augment": "None"}
    few = Images(tf.data.Dataset.from_tensor_slices(tuple(array[:2] for array in arrays)), 2, images.class_names)
    recipe = get_recipe("cifar10_splitmixer_i").change(changes)
    fit(recipe, output_dir=directory, train_images=images, test_images=few, verbose=0)


def measure(processes: int, threads: int, precision: str, batch_size: int) -> float:
    """Returns the images per second of the fastest epoch but the first."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += [__file__, "--folder", f"{directory}/run", "--precision", precision, "--batch-size", str(batch_size)]
        subprocess.run(
            command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        )
        with Path(directory, "run", "history.csv").open(newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return IMAGES / min(seconds[1:])


def main() -> None:
    """Measures both ways in turn, writes the file and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help="float32 or bfloat16 (default: both)")
    sizes = "images of all processes in a batch (default: 128 and 512)"
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 512], metavar="N", help=sizes)
    parser.add_argument("--repeats", type=int, default=2, metavar="N", help="how often each way (default: 2)")
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    if options.folder:
        train(options.folder, options.precision, *options.batch_size)
        return
    cores, rows = os.cpu_count() or 1, []
    precisions = [options.precision] if options.precision else ["float32", "bfloat16"]
    for precision, batch_size in itertools.product(precisions, options.batch_size):
        fastest = {}
        for _ in range(options.repeats):
            for ways in ((1, cores), (cores, 1)):
                found = measure(*ways, precision, batch_size)
                print(precision, batch_size, ways, f"{found:.1f} images/s", file=sys.stderr, flush=True)
                fastest[ways] = max(found, fastest.get(ways, 0))
        one, several = fastest.values()
        columns = ("precision", "batch_size", "cores", "one_process", "several_processes", "ratio")
        values = (precision, batch_size, cores, f"{one:.1f}", f"{several:.1f}", f"{several / one:.2f}")
        rows.append(dict(zip(columns, values, strict=True)))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(options.csv.read_text())


if __name__ == "__main__":
    main()
