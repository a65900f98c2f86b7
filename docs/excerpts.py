"""What the pages take from elsewhere, so that it cannot go stale: code of the library, and tables of README.md.

MkDocs calls `on_page_markdown` with each page. There the line

    <!-- code: keras_mixers.layers.SpatialMixer2D.mix -->

becomes that function or method as it is in the source, without its docstring, and `<!-- table: Models -->` the table of
the section "Models" of README.md. The library is read, not imported: no backend is needed.
"""

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page with its excerpts."""
    fill_in = {"code": lambda path: f"```python\n{source(path)}\n```", "table": table}
    return re.sub(
        r"^<!-- (code|table): (\S+) -->$", lambda line: fill_in[line[1]](line[2]), markdown, flags=re.MULTILINE
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


class Examples(griffe.Extension):
    """Takes the "Example:" of a docstring for the section that Griffe knows as "Examples:"."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
