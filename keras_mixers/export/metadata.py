"""What an exported file says about itself: its classes, the images that it takes, and what it gives."""

import json
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from typing import Any

NAME = "keras_mixers.json"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns what `export_model` has written into a file, whichever its format, without the runtime of that format.

    Only an ONNX file needs a package for it, onnx.

    Args:
        path: the file, or the folder of a SavedModel.

    Returns:
        `"class_names"`, a list or None; `"pixels"`, the size and the statistics of the images, or None; `"takes"`,
        `"raw pixels"` or `"normalised pixels"`; `"gives"`, `"logits"`, `"probabilities"` or `"features"`.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it was not written by `export_model`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no exported network at {str(path)!r}.")
    try:
        return json.loads(_text(path))
    except Exception as error:  # what a file raises that holds something else depends on what it holds
        raise ValueError(f"{str(path)!r} does not say what it is: export_model did not write it.") from error


def _text(path: Path) -> str:
    if path.is_dir():
        return (path / "assets.extra" / NAME).read_text()
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}[NAME]
    if path.suffix == ".xml":
        return ElementTree.parse(path).find(f".//rt_info/{NAME}").get("value")
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.split("/")[-1] == NAME)).decode()


def append_metadata(path: str | Path, metadata: dict[str, Any]) -> None:
    """Appends it, and the classes as labels.txt, to a zip archive or to a file that may end with one, as LiteRT's."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAME, json.dumps(metadata))
        if metadata["class_names"]:
            archive.writestr("labels.txt", "\n".join(metadata["class_names"]))
