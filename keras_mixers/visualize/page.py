"""All figures of a network, and a page that shows them in a browser without a network connection."""

import html
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mixers.inference.images import prepare_images
from keras_mixers.profiling import Profile, profile
from keras_mixers.training.curves import training_curves
from keras_mixers.visualize.channel_reach import channel_reach, mixes_channels
from keras_mixers.visualize.class_maps import class_maps
from keras_mixers.visualize.feature_maps import feature_maps
from keras_mixers.visualize.kernels import depthwise_kernels, has_kernels, patch_embedding

STYLE = """
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; font: 1rem/1.5 system-ui, sans-serif; }
figure { margin: 2rem 0; }
figcaption { max-width: 48rem; margin-bottom: 0.5rem; }
img { display: block; max-width: 100%; height: auto; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr:last-child { font-weight: bold; }
"""


def write_page(
    model: keras.Model,
    image: Any,
    folder: str | Path,
    *,
    history: Sequence[dict[str, float]] | None = None,
) -> Path:
    """Writes all figures of a network as PNGs, and an index.html that shows them beside its table of layers.

    The page takes nothing from the internet. It is written whole or not at all.

    Args:
        model: a network of this library. Figures that it has nothing for are left out, such as class maps of one
            without a head.
        image: a file, or an array (height, width, 3) of pixels from 0 to 255, if the network knows its pixels;
            otherwise one image as the network takes it.
        folder: where to write; it must not exist, or be empty.
        history: the rows of its training, for the curves.

    Returns:
        The path of index.html.

    Raises:
        ValueError: if an argument is not as above.
        FileExistsError: if the folder holds something.
        FileNotFoundError: if there is no such image.
        OSError: if the folder cannot be written.
        ImportError: if matplotlib is not installed.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"folder must be new or empty, got folder={str(folder)!r}; name another.")
    batch = prepare_images(model, [image])
    names = [layer.name for layer in model.layers]
    figures = {  # what each shows, whether there is something to show, and what draws it
        "patch_embedding": (
            "The kernels of the patch embedding, each scaled to its own range.",
            True,
            lambda save: patch_embedding(model, save=save),
        ),
        "depthwise_kernels": (
            "Depthwise kernels of successive blocks; red is above zero, blue below. Pairs of one-dimensional kernels "
            "are drawn as bars beside their product.",
            any(map(has_kernels, model.layers)),
            lambda save: depthwise_kernels(model, save=save),
        ),
        "channel_reach": (
            "Which channels of the patch embedding can have a part in each channel after a block.",
            any(map(mixes_channels, model.layers)),
            lambda save: channel_reach(model, save=save),
        ),
        "feature_maps": (
            "What the network makes of the image, after the embedding and after each block; each map is scaled to its "
            "own range.",
            True,
            lambda save: feature_maps(model, image, save=save),
        ),
        "class_maps": (
            "What each patch adds to the logits of the most probable classes: red speaks for a class, blue against it.",
            "head" in names,
            lambda save: class_maps(model, [image], save=save),
        ),
        "training_curves": (
            "The run that trained the network.",
            bool(history),
            lambda save: training_curves(history, save=save),
        ),
    }
    table = profile(model, batch.shape[1:])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
            page = Path(work, "page")
            page.mkdir()
            shown = {}
            for name, (caption, is_there, draw) in figures.items():
                if is_there:
                    draw(page / f"{name}.png")
                    shown[name] = caption
            (page / "index.html").write_text(_html(model, table, shown), encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            shutil.move(page, folder)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{str(folder)!r} cannot be written: {reason}; nothing is left of it.") from error
    return folder / "index.html"


def _html(model: keras.Model, table: Profile, figures: dict[str, str]) -> str:
    name = html.escape(model.name)
    cells = [("layer", "kind", "output shape", "parameters", "MACs")]
    cells += [
        (layer.name, layer.kind, " × ".join(map(str, layer.output_shape)), f"{layer.params:,}", f"{layer.macs:,}")
        for layer in table.layers
    ]
    cells += [("total", "", "", f"{table.params:,}", f"{table.macs:,}")]
    head, *body = [[html.escape(cell) for cell in row] for row in cells]
    rows = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    rows += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    drawn = [
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<img src="{name}.png" alt="{html.escape(name.replace("_", " "))}"></figure>'
        for name, caption in figures.items()
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<title>{name}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>',
            f"<h1>{name}</h1>",
            f"<p>{table.params:,} trainable parameters, {table.macs:,} multiply-accumulates for one image.</p>",
            *drawn,
            "<h2>Layers</h2>",
            f"<table>{''.join(rows)}</table>",
            "</body></html>",
            "",
        ]
    )
