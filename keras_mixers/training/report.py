"""What a run leaves once it is trained: the network, its metrics and its curves."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from keras_mixers.environment import describe_environment
from keras_mixers.training.callbacks import save_model
from keras_mixers.training.curves import training_curves
from keras_mixers.training.history import read_history
from keras_mixers.training.prepare import Prepared


@dataclass(frozen=True)
class Run:
    """What a training run gave.

    Attributes:
        model: the trained network, with the averaged weights if the recipe has `ema`.
        history: one dictionary an epoch, as in history.csv; of several processes, the first has it.
        metrics: as in metrics.json: `"top1"`, the share of test images whose class is right, from 0 to 1, their mean
            cross-entropy `"loss"`, and what the run was.
        directory: where the files are.
        writes: whether it was this process, of several, that wrote them.
    """

    model: keras.Model
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    directory: Path
    writes: bool = True


def report(run: Prepared) -> Run:
    """Evaluates the trained network, and writes it, its metrics and the curves."""
    found = run.model.evaluate(run.test, steps=run.test_steps, verbose=0, return_dict=True)
    history = read_history(run.directory / "history.csv") if run.devices.writes else []
    metrics = {
        "top1": found["accuracy"],
        "loss": found["loss"],
        "params": sum(math.prod(weight.shape) for weight in run.model.trainable_weights),
        "seconds": sum(row["seconds"] for row in history),
        "devices": run.devices.share.devices,
        "processes": run.devices.share.processes,
        "machine": asdict(describe_environment()),
        "recipe": run.recipe.to_json(),
        "start": run.notes["start"],
        "history": history,
    }
    if run.devices.writes:
        save_model(run.model, run.directory / "model.keras")
        (run.directory / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        if find_spec("matplotlib"):
            training_curves(history, save=run.directory / "curves.png")
    return Run(run.model, history, metrics, run.directory, run.devices.writes)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Returns what a metrics.json holds; version 0.1 wrote `"test_accuracy"` for `"top1"`, `"test_loss"` for `"loss"`.

    Args:
        path: the file.
    """
    metrics: Mapping[str, Any] = json.loads(Path(path).read_text())
    old = {"test_accuracy": "top1", "test_loss": "loss"}
    return {old.get(name, name): value for name, value in metrics.items()}
