"""The contract of an export format: what `export_model` asks of it, and what it hands to it."""

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mixers.export.folding import Form

METADATA = "keras_mixers.json"
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Quantization:
    """A way in which a format stores smaller numbers.

    Attributes:
        tolerance: the default of `export_model`'s `tolerance`.
        calibrated: whether it chooses its ranges by `representative_data`.
        integer_io: whether the network can take and give integers.
    """

    tolerance: float
    calibrated: bool = False
    integer_io: bool = False


@dataclass(frozen=True)
class Job:
    """One export: what was asked for, and where it is written.

    Attributes:
        name: the format's name, a key of `FORMATS`.
        folder: a folder for this job's intermediate files.
        file_name: name of the file that is written.
        form: how the network was written out in plain layers. Formats use `raw`, the dtype of pixels from 0 to 255 or
            None for normalised images, and `image_size`.
        batch_size: number of images in a batch, None if it may vary.
        quantization: a key of the format's `quantizations`, or None.
        integer_io: whether the network takes and gives integers.
        metadata: what the file says about itself, see `read_metadata`.
    """

    name: str
    format: "Format"
    folder: Path
    file_name: str
    form: Form
    batch_size: int | None
    quantization: str | None
    integer_io: bool
    metadata: dict[str, Any]

    @property
    def target(self) -> Path:
        """The path to write to; after the comparison all files in its folder are moved to the user's."""
        return self.folder / "written" / self.file_name

    @property
    def output(self) -> str:
        """Name of the output: `"logits"`, `"probabilities"` or `"features"`."""
        return self.metadata["gives"]

    def input_shape(self, model: keras.Model) -> tuple[int | None, ...]:
        """Returns the shape of a batch of images, None for what may vary."""
        return (self.batch_size, *model.input_shape[1:])

    def images(self) -> np.ndarray:
        """Returns the images on which the export is compared, as it takes them."""
        return np.load(self.folder / "images.npy")

    def representative(self) -> Iterator[np.ndarray]:
        """Yields batches of the images that calibrate a quantization, as the export takes them."""
        images, size = np.load(self.folder / "representative.npy"), self.batch_size or 1
        for first in range(0, len(images), size):
            yield np.resize(images[first : first + size], (size, *images.shape[1:]))  # the last batch is filled up


class Format:
    """A format of exported networks. A new one is a subclass, with `write` and `open`, and a row in `FORMATS`.

    Its module must not import a backend or a runtime before `write` or `open` is called: the table imports all modules.

    Attributes:
        title: what users call it.
        suffix: of its files; "" for a folder.
        companions: suffixes of the files that it writes beside the main one.
        backend: Keras's backend that writes it, None for any.
        packages: modules that must be installed to write and open it.
        extra: the extra of this package that installs them.
        tolerance: the default of `export_model`'s `tolerance`.
        quantizations: how it can store smaller numbers, by name.
    """

    title: str = ""
    suffix: str = ""
    companions: tuple[str, ...] = ()
    backend: str | None = None
    packages: tuple[str, ...] = ()
    extra: str = ""
    tolerance: float = 1e-5
    quantizations: dict[str, Quantization] = {}

    def form(self, form: Form, quantization: str | None) -> Form:
        """Returns how to write the network out in plain layers, given what the user asked for."""
        return form

    def write(self, model: keras.Model, job: Job) -> None:
        """Writes `model`, plain Keras layers from one image to one output, to `job.target`, with `job.metadata`."""
        raise NotImplementedError

    def open(self, path: Path) -> Run:
        """Opens the file in its own runtime, as a function from a batch of images to the output."""
        raise NotImplementedError

    def append_metadata(self, path: Path, metadata: dict[str, Any]) -> None:
        """Appends the metadata to a zip archive, or to a file that tolerates one at its end, as LiteRT's do."""
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA, json.dumps(metadata))
            if metadata["class_names"]:
                archive.writestr("labels.txt", "\n".join(metadata["class_names"]))

    def read_metadata(self, path: Path) -> str:
        """Returns the metadata as JSON; here from a zip archive, in any folder of it."""
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(name for name in archive.namelist() if name.split("/")[-1] == METADATA)).decode()
