"""The curves of a run, as a figure."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "accuracy": ("top-1 accuracy in %", 100),
    "loss": ("cross-entropy in nats", 1),
    "learning_rate": ("learning rate after the epoch", 1),
}
# Of Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, GREEN, VERMILION = "#0072B2", "#009E73", "#D55E00"


def training_curves(
    history: "Sequence[dict[str, float]] | keras.callbacks.History", title: str = "", save: str | Path | None = None
) -> "Figure":
    """Draws accuracy, loss and learning rate against the epochs.

    Args:
        history: one dictionary per epoch, as `keras_mixers.training.read_history` returns, or what `model.fit` returns.
        title: of the whole figure.
        save: a file to write the figure to.

    Returns:
        A matplotlib figure with a panel for each of the three that the history has.

    Raises:
        ValueError: if the history has no epochs, or none of these.
        ImportError: if matplotlib is not installed.

    Example:
        >>> rows = [{"epoch": 1, "loss": 1.2, "val_loss": 1.1}, {"epoch": 2, "loss": 0.9, "val_loss": 1.0}]
        >>> [axes.get_ylabel() for axes in training_curves(rows).axes]
        ['cross-entropy in nats']
    """
    if isinstance(history, keras.callbacks.History):
        columns = {"epoch": [epoch + 1 for epoch in history.epoch], **history.history}
        history = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    shown = [name for name in PANELS if len(history) and name in history[0]]
    if not shown:
        raise ValueError(f"history must have a row for each epoch with some of {', '.join(PANELS)}, got {history!r}.")
    if find_spec("matplotlib") is None:
        raise ImportError('Figures need matplotlib: pip install "keras-mixers[visualize]"')
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    if title:
        figure.suptitle(title)
    for name, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        label, scale = PANELS[name]
        epochs = [row["epoch"] for row in history]
        for key, words, color, marker in ((name, "training", BLUE, "o"), (f"val_{name}", "test", VERMILION, "s")):
            if key in history[0]:
                color = GREEN if name == "learning_rate" else color
                axes.plot(epochs, [scale * row[key] for row in history], f"{marker}-", color=color, ms=3, label=words)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if f"val_{name}" in history[0]:
            axes.legend()
    if save is not None:
        figure.savefig(save, dpi=150)
    return figure
