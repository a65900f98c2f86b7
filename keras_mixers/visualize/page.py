"""All figures of a network, and a page that shows them in a browser without a network connection."""

import html
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import keras

from keras_mixers.inference.images import prepare_images
from keras_mixers.profiling import Profile, profile
from keras_mixers.training.curves import training_curves
from keras_mixers.visualize.channel_reach import channel_reach, mixes_channels
from keras_mixers.visualize.class_maps import class_maps
from keras_mixers.visualize.feature_maps import feature_maps
from keras_mixers.visualize.kernels import (
    depthwise_kernels,
    patch_embedding,
    spatial_mixers,
    token_kernels,
    token_mixers,
)

PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name</title><link rel="icon" href="data:,"><style>
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; font: 1rem/1.5 system-ui, sans-serif; }
figure { margin: 2rem 0; }
figcaption { max-width: 48rem; margin-bottom: 0.5rem; }
img { display: block; max-width: 100%; height: auto; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr:last-child { font-weight: bold; }
</style></head><body>
<h1>$name</h1>
<p>$params trainable parameters, $macs multiply-accumulates for one image.</p>
$figures
<h2>Layers</h2>
<table>
<tr><th>layer</th><th>kind</th><th>output shape</th><th>parameters</th><th>MACs</th></tr>
$rows
</table>
</body></html>
""")


def write_page(
    model: keras.Model, image: Any, folder: str | Path, *, history: Sequence[dict[str, float]] | None = None
) -> Path:
    """Writes all figures of a network as PNGs, and an index.html that shows them beside its table of layers.

    The page takes nothing from the internet. It is written whole or not at all.

    Args:
        model: a network of this library. Figures that it has nothing for are left out, such as class maps without a
            head.
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
    has_head = any(layer.name == "head" for layer in model.layers)
    figures = {  # what each shows, whether there is something to show, and what draws it
        "patch_embedding": ("The kernels of the patch embedding, each scaled to its own range.", True,
            partial(patch_embedding, model)),
        "depthwise_kernels": ("Depthwise kernels of successive blocks; red is above zero, blue below. Pairs of "
            "one-dimensional kernels are drawn as bars beside their product.",
            bool(spatial_mixers(model)), partial(depthwise_kernels, model)),
        "token_kernels": ("Weights of units of successive blocks for each position in the grid of patches; red is "
            "above zero, blue below.", bool(token_mixers(model)), partial(token_kernels, model)),
        "channel_reach": ("Which channels of the patch embedding can influence each channel after a block.",
            any(map(mixes_channels, model.layers)), partial(channel_reach, model)),
        "feature_maps": ("What the network makes of the image, after the embedding and after each block; each map is "
            "scaled to its own range.", True, partial(feature_maps, model, image)),
        "class_maps": ("What each patch adds to the logits of the most probable classes: red speaks for a class, blue "
            "against it.", has_head, partial(class_maps, model, [image])),
        "training_curves": ("The run that trained the network.", bool(history), partial(training_curves, history)),
    }  # fmt: skip
    table = profile(model, batch.shape[1:])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
            page = Path(work, "page")
            page.mkdir()
            shown = {}
            for name, (caption, is_there, draw) in figures.items():
                if is_there:
                    draw(save=page / f"{name}.png")
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
    rows = [
        (layer.name, layer.kind, " × ".join(map(str, layer.output_shape)), f"{layer.params:,}", f"{layer.macs:,}")
        for layer in table.layers
    ]
    rows += [("total", "", "", f"{table.params:,}", f"{table.macs:,}")]
    return PAGE.substitute(
        name=html.escape(model.name),
        params=f"{table.params:,}",
        macs=f"{table.macs:,}",
        figures="\n".join(
            f"<figure><figcaption>{html.escape(caption)}</figcaption>"
            f'<img src="{name}.png" alt="{name.replace("_", " ")}"></figure>'
            for name, caption in figures.items()
        ),
        rows="\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows),
    )
