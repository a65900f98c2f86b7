"""The curves of a run, as a figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
TRAINING, TEST, RATE = "#0072B2", "#D55E00", "#009E73"


def draw_curves(history: Sequence[dict[str, float]], title: str = "") -> Figure:
    """Draws accuracy, loss and learning rate against the epochs.

    Args:
        history: one dictionary an epoch, as `read_history` returns.
        title: of the whole figure.

    Returns:
        A matplotlib figure of three panels.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, loss, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for axes, name, unit in ((accuracy, "accuracy", "top-1 accuracy in %"), (loss, "loss", "cross-entropy in nats")):
        scale = 100 if name == "accuracy" else 1
        axes.plot(epochs, [scale * row[name] for row in history], "o-", color=TRAINING, ms=3, label="training")
        axes.plot(epochs, [scale * row[f"val_{name}"] for row in history], "s-", color=TEST, ms=3, label="test")
        axes.set_ylabel(unit)
        axes.legend()
    rate.plot(epochs, [row["learning_rate"] for row in history], "o-", color=RATE, ms=3)
    rate.set_ylabel("learning rate after the epoch")
    for axes in (accuracy, loss, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    return figure
