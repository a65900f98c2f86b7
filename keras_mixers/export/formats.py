"""One table: the formats that a network can be exported to."""

import difflib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from keras_mixers.export.folding import Form


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes:
        suffix: how its files are named; "" for a folder.
        backend: Keras's backend that writes it, None for any.
        packages: what has to be installed to write and to open it.
        extra: the extra of this package that installs them.
        write: the function that writes it, as "module:function" of this package.
        open: the function that opens it with its own runtime.
        form: how the network is written out before.
        quantizations: how its numbers can be made smaller.
        integer_form: how it is written out for feature maps of 8 bits, if otherwise.
    """

    suffix: str
    backend: str | None
    packages: tuple[str, ...]
    extra: str
    write: str
    open: str
    form: Form = Form()  # noqa: RUF009
    quantizations: tuple[str, ...] = ()
    integer_form: Form | None = None

    def form_of(self, quantization: str | None, folded: bool) -> Form:
        """Returns how a network is written out before."""
        if not folded:
            return replace(self.form, multiply_add="norm", folded=False)
        if self.integer_form is None or quantization not in ("dynamic", "int8"):
            return self.form
        if quantization == "dynamic":  # what a norm leaves is computed with floats all the same
            return replace(self.integer_form, multiply_add=self.form.multiply_add)
        return self.integer_form


_CHANNELS_FIRST = Form(data_format="channels_first")
_ONNX = ("torch", "onnx", "onnxscript", "onnxruntime")

FORMATS = {
    "saved_model": Format(
        "", "tensorflow", ("tensorflow",), "litert",
        "on_tensorflow:write_saved_model", "on_tensorflow:open_saved_model",
    ),
    "litert": Format(
        ".tflite", "tensorflow", ("tensorflow", "ai_edge_litert"), "litert",
        "on_tensorflow:write_litert", "runtimes:open_litert",
        Form(multiply_add="depthwise"), ("float16", "dynamic", "int8"),
        # Integers have one range for all channels: it has to be that of the norms' outputs, not of other units.
        integer_form=Form(multiply_add="depthwise", units=False),
    ),
    "onnx": Format(
        ".onnx", "torch", _ONNX, "onnx",
        "on_torch:write_onnx", "runtimes:open_onnx", _CHANNELS_FIRST, ("dynamic", "int8"),
        # As a convolution, a multiply-add has a scale for each channel's weight, and is rounded once.
        integer_form=Form("channels_first", multiply_add="depthwise", units=False),
    ),
    "openvino": Format(
        ".xml", "torch", (*_ONNX, "openvino"), "openvino",
        "on_torch:write_openvino", "runtimes:open_openvino", _CHANNELS_FIRST,
    ),
    "torch": Format(
        ".pt2", "torch", ("torch",), "torch", "on_torch:write_torch", "on_torch:open_torch", _CHANNELS_FIRST,
    ),
    "keras": Format(".keras", None, (), "", "on_keras:write_keras", "on_keras:open_keras"),
}  # fmt: skip
QUANTIZATIONS = {
    "float16": "weights of 16 bits",
    "dynamic": "weights of 8 bits, computed with floats",
    "int8": "weights and feature maps of 8 bits",
}


def find_format(name: str | None, path: Path) -> str:
    """Returns the name of a format, that of the file's suffix if None is given, if the file is named so.

    Raises:
        ValueError: if there is no such format, or its files are named otherwise.
    """
    if name is None:
        name = next((key for key, value in FORMATS.items() if value.suffix == path.suffix), None)
        if name is None:
            raise ValueError(
                f"format must be given, or the path end with one of {_suffixes()}, got path={str(path)!r}."
            )
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1, cutoff=0)
        raise ValueError(
            f"format must be one of {', '.join(map(repr, FORMATS))}, got format={name!r}; did you mean {near[0]!r}?"
        )
    if path.suffix != FORMATS[name].suffix:
        wanted = f"end with {FORMATS[name].suffix}" if FORMATS[name].suffix else "be a folder's, without a suffix"
        raise ValueError(f"path must {wanted} for format={name!r}, got path={str(path)!r}.")
    return name


def check_quantization(name: str, quantization: str | None) -> None:
    """Refuses a quantisation that a format does not have."""
    known = FORMATS[name].quantizations
    if quantization is None or quantization in known:
        return
    if quantization in QUANTIZATIONS:
        having = [key for key, value in FORMATS.items() if quantization in value.quantizations]
        raise ValueError(f"quantization={quantization!r} is there for {' and '.join(having)}, not for format={name!r}.")
    near = difflib.get_close_matches(str(quantization), QUANTIZATIONS, n=1, cutoff=0)
    raise ValueError(
        f"quantization must be None or one of {', '.join(map(repr, QUANTIZATIONS))}, got "
        f"quantization={quantization!r}; did you mean {near[0]!r}?"
    )


def check_packages(name: str) -> None:
    """Refuses a format whose packages are not installed."""
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f'format={name!r} needs {", ".join(missing)}: pip install "keras-mixers[{FORMATS[name].extra}]"'
        )


def _suffixes() -> str:
    return ", ".join(value.suffix for value in FORMATS.values() if value.suffix)
