"""Whole runs against hand-written PyTorch: the same images, schedule and steps, seven seeds each.

    python docs/scripts/agreement_in_training.py --data-dir ~/tensorflow_datasets

trains `cifar10_smoke` on every backend and in PyTorch, and `cifar10_splitmixer_i_fast` with the same small network and
images on TensorFlow and in PyTorch, for four epochs, and writes docs/results/agreement_in_training.csv: an hour on two
cores. Runs that the table has already are skipped.
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
COLUMNS = ("recipe", "implementation", "seed", "top1", "loss", "machine")
BY_HAND = "hand-written PyTorch"
SEEDS = range(7)
SMALL = {
    "model_arguments": {"dim": 128, "blocks": 4, "patch_size": 4},
    "limit_train": 10_000,
    "limit_test": 2_000,
    "precision": "float32",
}
# With what is changed in it, and where it is run.
RECIPES = {
    "cifar10_smoke": ({"epochs": 4}, (BY_HAND, "jax", "tensorflow", "torch")),
    "cifar10_splitmixer_i_fast": ({**SMALL, "epochs": 4, "augmentation.rand_augment": None}, (BY_HAND, "tensorflow")),
}


def train_ours(name, seed, data_dir):
    """Train as users do."""
    from keras_mixers.training import fit, get_recipe

    with tempfile.TemporaryDirectory() as directory:
        run = fit(
            get_recipe(name).change({**RECIPES[name][0], "seed": seed}),
            output_dir=Path(directory) / "run",
            data_dir=data_dir,
            verbose=0,
        )
        return run.metrics["top1"], run.history[-1]["loss"]


def train_by_hand(name, seed, data_dir):
    """Train as the authors' own programs do: plain PyTorch, the learning rate set by hand at each step."""
    import torch

    sys.path.append(str(ROOT / "tests"))
    import torch_networks
    import torch_training

    from keras_mixers import get_preset
    from keras_mixers.data import eval_batches, load_tfds, train_batches
    from keras_mixers.training import get_recipe, keep_memory

    recipe = get_recipe(name).change(RECIPES[name][0])
    keep_memory()
    torch.manual_seed(seed)
    arguments = {**get_preset(recipe.model).arguments, **recipe.model_arguments}
    network = torch_networks.counterpart("SplitMixerI", arguments, "splitmixer").to(memory_format=torch.channels_last)
    images, test_images = (
        load_tfds("cifar10", split, data_dir, limit=limit)
        for split, limit in (("train", recipe.limit_train), ("test", recipe.limit_test))
    )
    if recipe.whitening:
        pixels, _ = next(eval_batches(images, 5_000, recipe.pixels).as_numpy_iterator())
        torch_training.whiten(network.patch_emb[0], to_torch(pixels), seed)
    kind = {"adamw": torch_training.AdamW, "muon": torch_training.Muon}[recipe.optimizer]
    optimizer = kind(network, recipe.weight_decay, recipe.epsilon)
    batch, maximum = recipe.batch_size, recipe.learning_rate
    in_epoch = -(-images.count // batch)
    losses = []
    batches = train_batches(
        images, batch, recipe.pixels, augmentation=recipe.augmentation, seed=seed, epochs=range(recipe.epochs)
    )
    network.train()
    for step, (x, y) in enumerate(batches.as_numpy_iterator()):
        done = (step + 1) / in_epoch
        corners = [0, recipe.epochs * 2 // 5, recipe.epochs * 4 // 5, recipe.epochs]
        optimizer.set_rate(np.interp(done, corners, [0, maximum, maximum / 20, 0]))
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
    """Give {(recipe, implementation, seed): row} from the table."""
    with TABLE.open(newline="") as file:
        return {(row["recipe"], row["implementation"], int(row["seed"])): row for row in csv.DictReader(file)}


def main():
    """Carry out the runs whose rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--one", nargs=3, metavar=COLUMNS[:3], help="only this run, as a row")
    arguments = parser.parse_args()
    if arguments.one:
        from keras_mixers.environment import describe_environment

        recipe, name, seed = arguments.one
        train = train_by_hand if name == BY_HAND else train_ours
        accuracy, loss = train(recipe, int(seed), arguments.data_dir)
        row = (*arguments.one, f"{100 * accuracy:.2f}", f"{loss:.4f}", describe_environment())
        csv.writer(sys.stdout).writerow(row)
        return

    def row_of(run):
        _, name, _ = run
        command = [sys.executable, __file__, "--one", *map(str, run)]
        command += ["--data-dir", arguments.data_dir] if arguments.data_dir else []
        environment = {**os.environ, "KERAS_BACKEND": "torch" if name == BY_HAND else name}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        (values,) = csv.reader(done.stdout.splitlines()[-1:])
        return dict(zip(COLUMNS, values, strict=True))

    rows = read() if TABLE.exists() else {}
    wanted = [(recipe, name, seed) for recipe, (_, names) in RECIPES.items() for seed in SEEDS for name in names]
    runs = [run for run in wanted if run not in rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # side by side, a core each
        for run, row in zip(runs, pool.map(row_of, runs), strict=True):
            rows[run] = row
            with TABLE.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows.values())


if __name__ == "__main__":
    main()
