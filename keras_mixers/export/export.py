"""One call writes a network in any format, from any backend, and compares what was written with the network."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.export.comparison import comparison_batches
from keras_mixers.export.folding import Form, UnknownLayerError, gives_probabilities, in_float32, lower
from keras_mixers.export.format import Job
from keras_mixers.export.formats import FORMATS, check_quantization, find_format
from keras_mixers.export.job import ExportError, carry_out
from keras_mixers.inference.images import is_channels_first, normalizes
from keras_mixers.layers import NormalizePixels
from keras_mixers.layers.validation import check_positive, check_positive_int
from keras_mixers.models.network import Network


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the network.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format: a key of `FORMATS`.
        quantization: how its numbers were made smaller, or None.
        backend: the backend of the network.
        max_difference: largest difference between the outputs of both, relative to max(1, largest output of the
            network).
        agreement: share of the images that both assign to the same class; None for a network without a head.
        accuracy: share of the images that the export classifies correctly; None without labels.
        original_accuracy: the same for the network.
        images: number of images on which both were compared.
        bytes: size of all that was written.
        latency: median seconds for one image, in the format's own runtime on this machine.
    """

    path: Path
    format: str
    quantization: str | None
    backend: str
    max_difference: float
    agreement: float | None
    accuracy: float | None
    original_accuracy: float | None
    images: int
    bytes: int
    latency: float

    def __str__(self) -> str:
        same = "" if self.agreement is None else f"the same class for {100 * self.agreement:.1f} % of "
        if self.accuracy is not None:
            same = f"right for {100 * self.accuracy:.1f} % (the network: {100 * self.original_accuracy:.1f} %), {same}"
        quantization = f" ({self.quantization})" if self.quantization else ""
        return (
            f"{self.path}: {self.format}{quantization}, {self.bytes / 1e6:.2f} MB, {1000 * self.latency:.2f} ms for an "
            f"image; {same}{self.images} images, outputs within {self.max_difference:.1e} of the network's"
        )


def export_model(
    model: keras.Model,
    path: str | Path,
    format: str | None = None,
    *,
    quantization: str | None = None,
    representative_data: Sequence[Any] | None = None,
    images: Sequence[Any] | None = None,
    labels: Sequence[int] | None = None,
    raw_pixels: bool = False,
    probabilities: bool = False,
    integer_io: bool = False,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | str | None = None,
    fold: bool = True,
    tolerance: float | None = None,
) -> ExportReport:
    """Writes a network for another runtime, opens it there, and compares both on images.

    A format that another backend writes is written in a process of its own with that backend, which has to be
    installed. Nothing is left behind if the format cannot be written or the outputs differ.

    Args:
        model: a network of this library, or any other Keras model of one image, which is written as it is.
        path: where it goes; nothing may be there yet.
        format: a key of `FORMATS`: `"saved_model"` (TensorFlow; a folder), `"litert"` (.tflite), `"onnx"` (.onnx),
            `"openvino"` (.xml, and .bin beside it), `"torch"` (.pt2) or `"keras"` (.keras, of plain Keras layers). None
            for that of the suffix.
        quantization: None; LiteRT's `"float16"`; `"dynamic"`, eight-bit weights, or `"int8"`, eight-bit weights and
            feature maps, for LiteRT and ONNX.
        representative_data: a hundred or more images like those that an int8 network will see, to choose its ranges;
            given as `images` are.
        images: on which both are compared: files or arrays (height, width, 3) with values from 0 to 255, of any size,
            if the network knows its `pixels`; otherwise a batch as the network takes it. None for
            `representative_data` or, without it, 32 drawn ones with the edges and noise of photographs.
        labels: class indices of `images`, for the accuracies in the report.
        raw_pixels: whether it takes raw pixels, uint8 from 0 to 255, and normalises them as `model.pixels` says.
        probabilities: whether a softmax follows the head.
        integer_io: whether an int8 LiteRT network takes and gives integers.
        batch_size: number of images that it takes at once, None for any.
        image_size: side in pixels, or (height, width), or `"any"`. None for the size of the network's input or, if that
            is open, the size in `model.pixels`.
        fold: whether norms are folded, see `fold`.
        tolerance: the largest accepted `ExportReport.max_difference`; None for 1e-5, 1e-2 in float16, 0.1 with
            eight-bit weights and 0.3 in int8.

    Returns:
        What was written, and how it compares.

    Raises:
        ValueError: if an argument is not as above.
        FileExistsError: if there is something at `path`.
        ImportError: if a package is missing; the message names the extra that installs it.
        OSError: if `path` cannot be written.
        ExportError: if the format cannot be written, or what was written differs by more than `tolerance`.

    Example:
        >>> import keras_mixers, tempfile
        >>> model = keras_mixers.SplitMixerI(dim=16, blocks=2, input_shape=(32, 32, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_model(model, f"{folder}/model.keras")
        >>> report.agreement, report.max_difference < 1e-5
        (1.0, True)
    """
    path = Path(path)
    format = find_format(format, path)
    check_quantization(format, quantization, representative_data is not None, integer_io)
    rules = FORMATS[format]
    check_free(path, rules.companions)
    check_model(model, raw_pixels)
    if tolerance is None:
        tolerance = rules.quantizations[quantization].tolerance if quantization else rules.tolerance
    tolerance = check_positive("tolerance", tolerance)
    batch_size = batch_size if batch_size is None else check_positive_int("batch_size", batch_size)
    size = check_image_size(model, image_size)
    form = Form(folded=fold, image_size=size, raw="uint8" if raw_pixels else None, probabilities=probabilities)
    form = rules.form(form, quantization)

    representative = None
    if representative_data is not None:
        representative = comparison_batches(model, form, "representative_data", representative_data)
        batch, exported_batch = representative
    if images is not None or representative is None:
        batch, exported_batch = comparison_batches(model, form, "images", images)
    if labels is not None and (images is None or len(labels) != len(batch)):
        raise ValueError(
            f"labels must be the classes of images, as many as there are, got {len(labels)} for "
            f"{'no' if images is None else len(batch)} images."
        )
    expected = in_full_precision(model).predict(batch, batch_size=32, verbose=0)
    if probabilities and not gives_probabilities(model):
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))

    with _folder_beside(path) as folder:
        np.save(folder / "images.npy", exported_batch)
        if representative is not None:
            np.save(folder / "representative.npy", representative[1])
        metadata = _metadata(model, raw_pixels, probabilities)
        job = Job(format, rules, folder, path.name, form, batch_size, quantization, integer_io, metadata)
        outputs, latency = carry_out(job, write_out(model, form))
        difference = float(np.abs(outputs - expected).max() / max(1.0, np.abs(expected).max()))
        if not difference <= tolerance:
            raise ExportError(
                f"The {format} network differs from its original by {difference:.1e} of the largest output, more than "
                f"tolerance={tolerance:g}; nothing was written."
            )
        check_free(path, rules.companions)
        size_in_bytes = sum(file.stat().st_size for file in job.target.parent.rglob("*") if file.is_file())
        for part in sorted(job.target.parent.iterdir()):
            os.replace(part, path.parent / part.name)
    agreement = accuracy = original_accuracy = None
    if job.output != "features":
        agreement = float(np.mean(outputs.argmax(1) == expected.argmax(1)))
        if labels is not None:
            accuracy, original_accuracy = (float(np.mean(y.argmax(1) == labels)) for y in (outputs, expected))
    return ExportReport(
        path, format, quantization, backends.NAME, difference, agreement, accuracy, original_accuracy,
        images=len(outputs), bytes=size_in_bytes, latency=latency,
    )  # fmt: skip


def write_out(model: keras.Model, form: Form) -> keras.Model:
    """Returns a network in plain layers; any other model as it is, with what `form` adds at both ends."""
    if isinstance(model, Network):
        with contextlib.suppress(UnknownLayerError):  # a mixer of the user's own
            return lower(model, form)
    shape = list(model.input_shape[1:])
    shape[slice(1, 3) if is_channels_first(model) else slice(0, 2)] = form.image_size
    with in_float32():
        x = image = keras.Input(shape, dtype=form.raw or "float32", name="image")
        x = keras.ops.cast(x, "float32") if form.raw == "uint8" else x
        if form.raw and not normalizes(model):
            layout = "channels_first" if is_channels_first(model) else "channels_last"
            x = NormalizePixels(model.pixels.mean, model.pixels.std, layout)(x)
        y = in_full_precision(model)(x)
        if form.probabilities and not gives_probabilities(model):
            y = keras.layers.Softmax(name="probabilities")(y)
    return keras.Model(image, y, name=model.name)


def in_full_precision(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32: the same one, or a copy with the dtype policy of each layer replaced.

    Setting the policies in the model itself would leave the functions that Keras has compiled in the old precision.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def widened(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "config": {"name": "float32"}} if config.get("class_name") == "DTypePolicy" else config

    wide = type(model).from_config(json.loads(json.dumps(model.get_config()), object_hook=widened))
    wide.set_weights(model.get_weights())
    return wide


def check_model(model: Any, raw_pixels: bool) -> None:
    """Refuses what is not a model of images, or does not know how raw pixels are normalised."""
    if not isinstance(model, keras.Model) or not isinstance(getattr(model, "input_shape", None), tuple):
        raise ValueError(f"model must be a Keras model of one image, got {type(model).__name__}; build it first.")
    if len(model.input_shape) != 4:
        raise ValueError(f"model must take a batch of images, of rank 4, got input_shape={model.input_shape}.")
    if raw_pixels and not normalizes(model) and getattr(model, "pixels", None) is None:
        raise ValueError(
            "raw_pixels=True needs to know how pixels are normalised: set model.pixels, as get_preset(NAME).pixels is."
        )


def check_free(path: Path, companions: Sequence[str] = ()) -> None:
    """Refuses a path where something is, or where nothing can be written."""
    for place in (path, *(path.with_suffix(suffix) for suffix in companions)):
        if place.exists() or place.is_symlink():
            raise FileExistsError(f"path must not exist yet, got path={str(place)!r}; remove it, or choose another.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path must be in a folder that exists, got path={str(path)!r}; make its folder.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"path must be in a folder that can be written, got path={str(path)!r}; choose another.")


def check_image_size(model: keras.Model, image_size: Any) -> tuple[int | None, int | None]:
    """Returns the height and width that an export takes, None for what may vary."""
    fixed = model.input_shape[2:4] if is_channels_first(model) else model.input_shape[1:3]
    if image_size == "any":
        wanted = (None, None)
    elif image_size is None:
        pixels = getattr(model, "pixels", None)
        wanted = tuple(side or (pixels.size if pixels else None) for side in fixed)
    else:
        sides = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
        if len(sides) != 2:
            raise ValueError(
                f"image_size must be a number, (height, width), 'any' or None, got image_size={image_size!r}."
            )
        wanted = tuple(check_positive_int("image_size", side) for side in sides)
    if any(side not in (None, given) for side, given in zip(fixed, wanted, strict=True)):
        raise ValueError(
            f"image_size must be the network's, {fixed}, got image_size={image_size!r}; build the network with "
            "input_shape=None for images of any size."
        )
    return wanted


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Makes a temporary folder on the same file system, from which whole files can be moved."""
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except FileExistsError:  # someone else has written there in the meantime
        raise
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror or error}; nothing is left of it.") from error


def _metadata(model: keras.Model, raw_pixels: bool, probabilities: bool) -> dict[str, Any]:
    pixels, names = getattr(model, "pixels", None), getattr(model, "class_names", None)
    gives = "probabilities" if probabilities or gives_probabilities(model) else "logits"
    if len(model.output_shape) != 2 or (isinstance(model, Network) and model.layers[-1].name != "head"):
        gives = "features"
    return {
        "class_names": list(names) if names else None,
        "pixels": asdict(pixels) if pixels else None,
        "takes": "raw pixels" if raw_pixels or normalizes(model) else "normalised pixels",
        "gives": gives,
    }
