"""The table of formats that a network can be exported to, and what users ask of it by name."""

import importlib.util
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from keras_mixers.export.format import Format, Quantization
from keras_mixers.export.keras_file import KerasFile
from keras_mixers.export.litert import LiteRT
from keras_mixers.export.onnx import Onnx, OpenVino
from keras_mixers.export.saved_model import SavedModel
from keras_mixers.export.torch_program import TorchProgram
from keras_mixers.layers.validation import did_you_mean

FORMATS: dict[str, Format] = {
    "saved_model": SavedModel(),
    "litert": LiteRT(),
    "onnx": Onnx(),
    "openvino": OpenVino(),
    "torch": TorchProgram(),
    "keras": KerasFile(),
}


def find_format(name: str | None, path: Path) -> str:
    """Returns the name of a format that is installed: the given one, or that of the path's suffix."""
    if name is None:
        name = next((key for key, format in FORMATS.items() if format.suffix == path.suffix), None)
        if name is None:
            suffixes = ", ".join(format.suffix for format in FORMATS.values() if format.suffix)
            raise ValueError(f"format must be given, or the path end with one of {suffixes}, got path={str(path)!r}.")
    format = FORMATS[_choice("format", name, FORMATS)]
    if path.suffix != format.suffix:
        wanted = f"end with {format.suffix}" if format.suffix else "have no suffix"
        raise ValueError(f"path must {wanted} for format={name!r}, got path={str(path)!r}.")
    missing = [package for package in format.packages if importlib.util.find_spec(package) is None]
    if missing:
        extra = f'keras-mixers[{format.extra}]"' if format.extra else f'{" ".join(missing)}"'
        raise ImportError(f'format={name!r} needs {", ".join(missing)}: pip install "{extra}')
    return name


def quantizations() -> list[tuple[str, str, Quantization]]:
    """Returns (format's name, name, quantization) for each of the table."""
    return [(name, kind, each) for name, format in FORMATS.items() for kind, each in format.quantizations.items()]


def check_quantization(name: str, quantization: str | None, calibrating: bool, integer_io: bool) -> None:
    """Refuses a quantization that a format does not have, or not without representative data or with integers."""
    known = FORMATS[name].quantizations.get(quantization)
    if quantization is not None and known is None:
        _choice("quantization", quantization, dict.fromkeys(kind for _, kind, _ in quantizations()), "None or ")
        having = " and ".join(other for other, kind, _ in quantizations() if kind == quantization)
        raise ValueError(f"quantization={quantization!r} exists for {having}, not for format={name!r}.")
    if integer_io and not (known and known.integer_io):
        having = " or ".join(
            f"format={other!r} and quantization={kind!r}" for other, kind, each in quantizations() if each.integer_io
        )
        raise ValueError(f"integer_io needs {having}, got {name!r} and {quantization!r}.")
    if known and known.calibrated and not calibrating:
        raise ValueError(
            f"quantization={quantization!r} needs representative_data: a hundred or more images like those that it "
            "will see."
        )


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns what `export_model` noted in a file of any format, without that format's runtime.

    Only an ONNX file needs a package, onnx.

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
    # It may have been renamed: most formats are zip archives, which `Format` reads.
    renamed = FORMATS["saved_model"] if path.is_dir() else Format()
    format = next((format for format in FORMATS.values() if format.suffix and format.suffix == path.suffix), renamed)
    try:
        return json.loads(format.read_metadata(path))
    except Exception as error:  # any file may be there
        raise ValueError(f"{str(path)!r} does not say what it is: export_model did not write it.") from error


def _choice(argument: str, value: object, choices: Collection[str], nothing: str = "") -> Any:
    if value in choices:
        return value
    raise ValueError(
        f"{argument} must be {nothing}one of {', '.join(map(repr, choices))}, got {argument}={value!r}; "
        f"{did_you_mean(value, choices, count=1)}"
    )
