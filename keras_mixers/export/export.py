"""One call writes a network in any format, from any backend, and compares what was written with the network."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers import backends
from keras_mixers.export.comparison import ComparisonImages
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
        format: its format.
        quantization: how its numbers were made smaller, or None.
        backend: the backend of the network.
        max_difference: the largest difference between an output and the network's, in parts of the largest output of
            the network (of 1, if that is less).
        agreement: the share of the images that both assign to the same class; None for a network without a head.
        accuracy: the share of the images that it assigns to their class; None where no labels were given.
        original_accuracy: the same of the network.
        images: on how many images both were compared.
        bytes: size of all that was written.
        latency: seconds for one image, in the format's own runtime on this machine: the median of many.
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

    A format that another backend writes is written in a process of its own with that backend, whose packages have to be
    installed. Nothing is left behind if the format cannot be written or the outputs differ.

    Args:
        model: a network of this library; or any other Keras model of one image, which is written as it is.
        path: where it goes; there must be nothing yet.
        format: a key of `FORMATS`: `"saved_model"` (TensorFlow; a folder), `"litert"` (.tflite), `"onnx"` (.onnx),
            `"openvino"` (.xml, and .bin beside it), `"torch"` (.pt2) or `"keras"` (.keras, of plain Keras layers). None
            for that of the suffix.
        quantization: None; LiteRT's `"float16"`; `"dynamic"`, eight-bit weights; `"int8"`, eight-bit weights and
            feature maps, for LiteRT and ONNX.
        representative_data: images like those that an int8 network will see, a hundred or more; its ranges are chosen
            by them. Given as `images` are.
        images: on which both are compared: files or arrays (height, width, 3) with values from 0 to 255, of any size,
            if the network knows its `pixels`; otherwise a batch as the network takes it. None for
            `representative_data` or, if there is none, 32 drawn ones that have a photograph's edges and noise.
        labels: the numbers of the classes of `images`; with these, the report has both accuracies.
        raw_pixels: whether it takes raw pixels, uint8 from 0 to 255, and normalises them as `model.pixels` says.
        probabilities: whether a softmax follows the head.
        integer_io: whether an int8 LiteRT network takes and gives integers.
        batch_size: number of images that it takes at once, None for any.
        image_size: the side of an image in pixels, or (height, width), or `"any"`. None for the size of the network's
            input; if that is open, for the size in `model.pixels`.
        fold: whether norms are folded, see `fold`.
        tolerance: the largest difference that is accepted, as `ExportReport.max_difference` counts it; None for 1e-5,
            1e-2 in float16, 0.1 with eight-bit weights and 0.3 in int8.

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

    comparison = ComparisonImages(model, form)
    if images is None and representative_data is not None:
        batch, exported_batch = comparison.batches("representative_data", representative_data)
    else:
        batch, exported_batch = comparison.batches("images", images)
    if labels is not None and (images is None or len(labels) != len(batch)):
        raise ValueError(
            f"labels must be the classes of images, as many as there are, got {len(labels)} for "
            f"{'no' if images is None else len(batch)} images."
        )
    expected = outputs_of(model, batch, probabilities)

    with _folder_beside(path) as folder:
        np.save(folder / "images.npy", exported_batch)
        if representative_data is not None:
            np.save(folder / "representative.npy", comparison.batches("representative_data", representative_data)[1])
        job = Job(
            name=format,
            format=rules,
            folder=folder,
            file_name=path.name,
            form=form,
            batch_size=batch_size,
            quantization=quantization,
            integer_io=integer_io,
            metadata=_metadata(model, raw_pixels, probabilities),
        )
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
        path=path,
        format=format,
        quantization=quantization,
        backend=backends.NAME,
        max_difference=difference,
        agreement=agreement,
        accuracy=accuracy,
        original_accuracy=original_accuracy,
        images=len(outputs),
        bytes=size_in_bytes,
        latency=latency,
    )


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
            data_format = "channels_first" if is_channels_first(model) else "channels_last"
            x = NormalizePixels(model.pixels.mean, model.pixels.std, data_format)(x)
        y = in_full_precision(model)(x)
        if form.probabilities and not gives_probabilities(model):
            y = keras.layers.Softmax(name="probabilities")(y)
    return keras.Model(image, y, name=model.name)


def outputs_of(model: keras.Model, batch: np.ndarray, probabilities: bool) -> np.ndarray:
    """Returns what a network gives in float32, for comparison."""
    model = in_full_precision(model)
    outputs = model.predict(batch, batch_size=32, verbose=0)
    if probabilities and not gives_probabilities(model):
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return outputs


def in_full_precision(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32; the same one if it does.

    Layers have their own policies, also inside others, so that Keras has no argument for it: they are replaced in the
    config. To set them in the model itself would leave what Keras has compiled in the old precision.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def widened(config: Any) -> Any:
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy":
                return {**config, "config": {"name": "float32"}}
            return {key: widened(value) for key, value in config.items()}
        return [widened(value) for value in config] if isinstance(config, list | tuple) else config

    wide = type(model).from_config(widened(model.get_config()))
    wide.set_weights(model.get_weights())
    return wide


def check_model(model: Any, raw_pixels: bool) -> None:
    """Refuses what is no model of images, or does not know how raw pixels are normalised."""
    if not isinstance(model, keras.Model) or not isinstance(getattr(model, "input_shape", None), tuple):
        raise ValueError(f"model must be a Keras model of one image, got {type(model).__name__}; build it first.")
    if len(model.input_shape) != 4:
        raise ValueError(f"model must take a batch of images, of rank 4, got input_shape={model.input_shape}.")
    if raw_pixels and not normalizes(model) and getattr(model, "pixels", None) is None:
        raise ValueError(
            "raw_pixels=True needs to know how pixels are normalised: set model.pixels, as get_preset(NAME).pixels is."
        )


def check_free(path: Path, companions: Sequence[str] = ()) -> None:
    """Refuses a place where something is, or where nothing can be written."""
    for place in (path, *(path.with_suffix(suffix) for suffix in companions)):
        if place.exists() or place.is_symlink():
            raise FileExistsError(f"path must not exist yet, got path={str(place)!r}; remove it, or choose another.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path must be in a folder that exists, got path={str(path)!r}; make its folder.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"path must be in a folder that can be written, got path={str(path)!r}; choose another.")


def check_image_size(model: keras.Model, image_size: Any) -> tuple[int | None, int | None]:
    """Returns the height and the width that an export takes, None for what may vary."""
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
            f"image_size must be that of the network, {fixed}, got image_size={image_size!r}; build the network with "
            "input_shape=None for images of any size."
        )
    return wanted


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Makes a folder on the same file system, from which a whole file can be moved, and removes it."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=path.parent))
        yield folder
    except FileExistsError:  # someone else has written there in the meantime
        raise
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror or error}; nothing is left of it.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _name_of_output(model: keras.Model, probabilities: bool) -> str:
    if len(model.output_shape) != 2 or (isinstance(model, Network) and model.layers[-1].name != "head"):
        return "features"
    return "probabilities" if probabilities or gives_probabilities(model) else "logits"


def _metadata(model: keras.Model, raw_pixels: bool, probabilities: bool) -> dict[str, Any]:
    pixels, names = getattr(model, "pixels", None), getattr(model, "class_names", None)
    return {
        "class_names": list(names) if names else None,
        "pixels": asdict(pixels) if pixels else None,
        "takes": "raw pixels" if raw_pixels or normalizes(model) else "normalised pixels",
        "gives": _name_of_output(model, probabilities),
    }
