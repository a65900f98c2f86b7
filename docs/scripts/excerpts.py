"""What the pages take from elsewhere, so that it cannot go stale: code of the library, and tables of README.md.

MkDocs calls `on_page_markdown` with each page. There the line

    <!-- code: keras_mixers.layers.SpatialMixer2D.mix -->

becomes that function or method as it is in the source, without its docstring, `<!-- table: Models -->` the table of
the section "Models" of README.md, `<!-- cards: cifar10 -->` what the package's weights for a data set say of
themselves, and `<!-- file: CONTRIBUTING.md -->` that file. The library is read, not imported: no backend is needed.
"""

import json
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import safetensors

ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page with its excerpts."""
    fill_in = {"code": lambda path: f"```python\n{source(path)}\n```", "table": table, "cards": cards, "file": file}
    return re.sub(
        r"^<!-- (code|table|cards|file): (\S+) -->$",
        lambda line: fill_in[line[1]](line[2]),
        markdown,
        flags=re.MULTILINE,
    )


@cache
def library() -> griffe.Module:
    """Reads the library's source."""
    return griffe.load("keras_mixers", search_paths=[ROOT])


def source(path: str) -> str:
    """Returns the code of a function or method, without its docstring."""
    function = library()[path.removeprefix("keras_mixers.")]
    lines = function.source.splitlines()
    if function.docstring:
        first, last = (line - function.lineno for line in (function.docstring.lineno, function.docstring.endlineno))
        del lines[first : last + 1]
    return textwrap.dedent("\n".join(lines))


def table(section: str) -> str:
    """Returns the table of a section of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^## {section}\n.*?((?:^\|[^\n]*\n)+)", text, re.MULTILINE | re.DOTALL)[1]


def file(name: str) -> str:
    """Returns a file of the top folder."""
    return (ROOT / name).read_text(encoding="utf-8")


def cards(dataset: str) -> str:
    """Returns a section for each set of weights in the package that was trained on a data set."""
    sections = []
    for path in sorted((ROOT / "keras_mixers" / "weights" / "trained").glob(f"*.{dataset}.safetensors")):
        with safetensors.safe_open(path, framework="numpy") as file:
            card = json.loads(file.metadata()["card"])
        published = f", published {card['published']:.2f} %" if card["published"] else ""
        changes = f" with {card['changes'].replace(';', ', ')}" if card["changes"] else ""
        sections.append(
            f"### {card['model']}\n\n"
            f"Top-1 accuracy on the test images: **{card['top1']:.2f} %** ({card['top1_flipped']:.2f} % averaged over "
            f"each image and its mirror image{published}).\n\n"
            f'- `keras_mixers.create_model("{card["model"]}", weights="{dataset}")`, '
            f"{path.stat().st_size / 1e6:.2f} MB in {card['stored_as']}\n"
            f"- Recipe `{card['recipe']}`{changes}: {card['epochs']} epochs, seed {card['seed']}, "
            f"{card['minutes']:.0f} minutes\n"
            f"- On {card['machine']}\n- At commit `{card['commit']}`: `{card['command']}`\n"
        )
    return "\n".join(sections) or "There are none yet."


class Examples(griffe.Extension):
    """Takes the "Example:" of a docstring for the section that Griffe knows as "Examples:"."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
