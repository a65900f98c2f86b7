"""Trains on `imagenette_mini`, 224-pixel photographs of ten classes (100 + 30 each), and keeps what the runs gave.

    KERAS_BACKEND=tensorflow python docs/scripts/imagenette.py ../shared/data/imagenette_mini

writes docs/results/imagenette.csv: a network from scratch on all ten classes, and one that was trained on five of
them and then, with a new head and frozen first blocks, on the other five, against the same from scratch.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("run", "top1", "epochs", "minutes", "seed", "backend", "machine", "command")
SETTING = (
    "precision=float32 batch_size=32 learning_rate=0.01 weight_decay=0.05 model_arguments.dim=64 "
    "augmentation.resize=None augmentation.crop_scale=(0.35,1.0)"
).split()


def main(images: Path) -> None:
    """Trains, and writes the table."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        classes = sorted(path.name for path in (images / "train").iterdir())
        halves = {"first": classes[::2], "second": classes[1::2]}
        for half, names in halves.items():
            for part in ("train", "val"):
                (directory / half / part).mkdir(parents=True)
                for name in names:
                    (directory / half / part / name).symlink_to((images / part / name).resolve())

        def train(run: str, folder: Path, epochs: int, *more: str) -> None:
            command = ["train", "flowers102_splitmixer_i", "--images", str(folder), "--epochs", str(epochs)]
            command += [*more, "--set", *SETTING]
            output = ["--output-dir", str(directory / "runs" / run)]
            subprocess.run([sys.executable, "-m", "keras_mixers", *command, *output], check=True)
            metrics = json.loads((directory / "runs" / run / "metrics.json").read_text())
            shown = shlex.join(["python", "-m", "keras_mixers", *command])
            for path, name in ((str(images), "imagenette_mini"), (f"{directory}/", "")):
                shown = shown.replace(path, name)
            rows.append(
                {
                    "run": run,
                    "top1": f"{100 * metrics['top1']:.1f}",
                    "epochs": epochs,
                    "minutes": f"{metrics['seconds'] / 60:.1f}",
                    "seed": metrics["recipe"]["seed"],
                    "backend": metrics["machine"]["backend"],
                    "machine": f"{metrics['machine']['cpu']}, {metrics['machine']['cores']} cores",
                    "command": f"KERAS_BACKEND={os.environ['KERAS_BACKEND']} {shown}",
                }
            )

        train("ten_classes", images, 20)
        train("first_five_classes", directory / "first", 15)
        weights = str(directory / "runs" / "first_five_classes" / "model.keras")
        train("other_five_from_scratch", directory / "second", 5)
        train("other_five_fine_tuned", directory / "second", 5, "--weights", weights, "--freeze", "2")
    with (RESULTS / "imagenette.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, metavar="FOLDER")
    main(parser.parse_args().images.resolve())
