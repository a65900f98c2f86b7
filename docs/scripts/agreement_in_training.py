"""Whole runs against hand-written PyTorch: the same images, schedule and steps, seven seeds each.

    python docs/scripts/agreement_in_training.py --data-dir ~/tensorflow_datasets

trains `cifar10_smoke` for four epochs, on every backend and in PyTorch, and writes
docs/results/agreement_in_training.csv: half an hour on two cores. Runs that the table has already are skipped.
The weights are drawn by each library, so accuracies differ as those of seeds do: their means are to agree within one
standard deviation.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "results" / "agreement_in_training.csv"
COLUMNS = ("implementation", "seed", "top1", "loss", "machine")
IMPLEMENTATIONS = ("hand-written PyTorch", "jax", "tensorflow", "torch")
SEEDS = range(7)
EPOCHS = 4


def train_ours(seed, data_dir):
    """Train as users do."""
    from keras_mixers.training import fit, get_recipe

    with tempfile.TemporaryDirectory() as directory:
        run = fit(
            get_recipe("cifar10_smoke").change({"seed": seed, "epochs": EPOCHS}),
            output_dir=Path(directory) / "run",
            data_dir=data_dir,
            verbose=0,
        )
        return run.metrics["top1"], run.history[-1]["loss"]


def train_by_hand(seed, data_dir):
    """Train as the authors' own programs do: plain PyTorch, the learning rate set by hand at each step."""
    import torch

    sys.path.append(str(ROOT / "tests"))
    import torch_networks

    from keras_mixers import get_preset
    from keras_mixers.data import eval_batches, load_tfds, train_batches
    from keras_mixers.training import get_recipe, keep_memory

    recipe = get_recipe("cifar10_smoke").change({"epochs": EPOCHS})
    keep_memory()
    torch.manual_seed(seed)
    arguments = {**get_preset(recipe.model).arguments, **recipe.model_arguments}
    network = torch_networks.counterpart("SplitMixerI", arguments, "splitmixer").to(memory_format=torch.channels_last)
    images, test_images = (
        load_tfds("cifar10", split, data_dir, limit=limit)
        for split, limit in (("train", recipe.limit_train), ("test", recipe.limit_test))
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.005, eps=1e-8)
    in_epoch = -(-images.count // 128)
    losses = []
    batches = train_batches(
        images, 128, recipe.pixels, augmentation=recipe.augmentation, seed=seed, epochs=range(recipe.epochs)
    )
    network.train()
    for step, (x, y) in enumerate(batches.as_numpy_iterator()):
        done = (step + 1) / in_epoch
        corners = [0, recipe.epochs * 2 / 5, recipe.epochs * 4 / 5, recipe.epochs]
        optimizer.param_groups[0]["lr"] = np.interp(done, corners, [0, 0.01, 0.01 / 20, 0])
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(to_torch(x)), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append((loss.item(), len(x)))
    network.eval()
    right = 0
    with torch.no_grad():
        for x, y in eval_batches(test_images, 500, recipe.pixels).as_numpy_iterator():
            right += int((network(to_torch(x)).argmax(1).numpy() == y.argmax(1)).sum())
    values, counts = zip(*losses[-in_epoch:], strict=True)
    return right / test_images.count, float(np.average(values, weights=counts))


def to_torch(x):
    """Move a batch to PyTorch, channels first, in the layout that is fastest."""
    import torch

    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(memory_format=torch.channels_last)


def read():
    """Give {(implementation, seed): row} from the table."""
    with TABLE.open(newline="") as file:
        return {(row["implementation"], int(row["seed"])): row for row in csv.DictReader(file)}


def main():
    """Carry out the runs whose rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--one", nargs=2, metavar=("IMPLEMENTATION", "SEED"), help="only this run, as a row")
    arguments = parser.parse_args()
    if arguments.one:
        from keras_mixers.environment import describe_environment

        name, seed = arguments.one
        train = train_by_hand if name == IMPLEMENTATIONS[0] else train_ours
        accuracy, loss = train(int(seed), arguments.data_dir)
        csv.writer(sys.stdout).writerow((name, seed, f"{100 * accuracy:.2f}", f"{loss:.4f}", describe_environment()))
        return

    def row_of(run):
        name, seed = run
        command = [sys.executable, __file__, "--one", name, str(seed)]
        command += ["--data-dir", arguments.data_dir] if arguments.data_dir else []
        environment = {**os.environ, "KERAS_BACKEND": "torch" if name == IMPLEMENTATIONS[0] else name}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        (values,) = csv.reader(done.stdout.splitlines()[-1:])
        return dict(zip(COLUMNS, values, strict=True))

    rows = read() if TABLE.exists() else {}
    runs = [(name, seed) for seed in SEEDS for name in IMPLEMENTATIONS if (name, seed) not in rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # side by side, a core each
        for run, row in zip(runs, pool.map(row_of, runs), strict=True):
            rows[run] = row
            with TABLE.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows.values())


if __name__ == "__main__":
    main()
