"""Where images come from: a TFDS name or a folder of class folders."""

import contextlib
import dataclasses
import difflib
import hashlib
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mixers.layers.validation import check_positive_int
from keras_mixers.models.datasets import find_dataset
from keras_mixers.models.image_files import IMAGE_SUFFIXES, decode_image

# How the files that TensorFlow decodes itself begin and end: JPEG, PNG, GIF.
BEGINNINGS, ENDS = (b"\xff\xd8", b"\x89\x50", b"GI"), (b"\xff\xd9", b"\x60\x82", b"\x00\x3b")
# The EXIF entry of an orientation other than upright, in either byte order; it stands near the beginning of a file.
TURNED = "\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08]|\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
HEAD_BYTES = 65536
VALIDATION_FOLDERS = ("val", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images, read when they are needed.

    Args:
        records: `tf.data.Dataset` of (record, int64 label). Shuffling moves records, such as paths, rather than pixels.
        count: number of examples.
        class_names: names of the classes, in the order of their labels.
        decode: function of a record that returns its uint8 image (height, width, 3); None if records are such images.
        shuffle_buffer: number of records that may be held in memory for shuffling; all of them by default.
        origin: which images these are, as values of JSON: for a folder, the hash of its files' names.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> pixels, labels = np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 1, 0, 1])
        >>> images = Images(tf.data.Dataset.from_tensor_slices((pixels, labels)), 4, ("cat", "dog"))
        >>> images.num_classes
        2
    """

    records: tf.data.Dataset
    count: int
    class_names: tuple[str, ...]
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None
    shuffle_buffer: int | None = None
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def examples(self) -> tf.data.Dataset:
        """`tf.data.Dataset` of (uint8 image (height, width, 3), int64 label), in the order of the source."""
        if self.decode is None:
            return self.records
        return self.records.map(lambda record, label: (self.decode(record), label), tf.data.AUTOTUNE)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of all images, with None for what differs or is not known."""
        return tuple(self.examples.element_spec[0].shape)

    def cached(self) -> "Images":
        """The same images, whose pixels stay in memory as uint8 once they have been read."""
        return dataclasses.replace(self, records=self.examples.cache(), decode=None, shuffle_buffer=None)


def load_tfds(
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    limit: int | None = None,
    verbose: bool = True,
) -> Images:
    """Images of a TFDS data set that has the features `image` and `label`.

    Args:
        name: TFDS name, such as "cifar10" or "oxford_flowers102:2.1.1".
        split: TFDS split, such as "train" or "train[:90%]".
        data_dir: folder of the data sets; TFDS's own, `~/tensorflow_datasets`, by default.
        download: whether to fetch and prepare the data set if `data_dir` lacks it.
        limit: keep only the first `limit` examples.
        verbose: whether TFDS shows its progress on standard error while it fetches a data set.

    Returns:
        `Images`. Records are compressed images, read in the order of the files; TFDS shuffled them when it wrote
        those, so a `shuffle_buffer` of 10,000 mixes them well.

    Raises:
        ValueError: for an unknown name or split, a data set without images and labels, or a limit below 1.
        FileNotFoundError: if `data_dir` lacks the data set and `download` is False, or TFDS cannot fetch it.
        ConnectionError: if it cannot be fetched without a connection.

    Example:
        >>> load_tfds("cifar11", "train")
        Traceback (most recent call last):
        ValueError: TFDS has no data set 'cifar11'; did you mean cifar10...
    """
    if limit is not None:
        check_positive_int("limit", limit)
    try:
        builder = tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
    except ValueError:
        known = tfds.list_builders(with_community_datasets=False)
        if name.split("/")[0].split(":")[0] in known:  # It is the version or the configuration that is unknown.
            raise
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "tfds.list_builders() lists the names."
        raise ValueError(f"TFDS has no data set {name!r}; {hint}") from None
    if not builder.data_path.exists():
        folder = str(data_dir or tfds.core.constants.DATA_DIR)
        if not download:
            absent = f"The data set {name!r} is not in {folder!r}, and downloads are switched off"
            raise FileNotFoundError(f"{absent}; switch them on, or name the folder that holds it.")
        _fetch(builder, name, folder, verbose)
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not (isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)):
        raise ValueError(f"The data set {name!r} needs an image and a class label, but its features are {[*features]}.")
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        known = ", ".join(builder.info.splits)
        raise ValueError(
            f"The data set {name!r} has no split {split!r}; its splits are {known}, or slices such as train[:90%]."
        ) from error
    records = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        # TFDS would cache small sets itself; train_batches and eval_batches decide when images are cached.
        read_config=tfds.ReadConfig(try_autocache=False),
    ).map(lambda example: (example["image"], example["label"]))
    height, width, _ = image.shape
    count = min(count, limit or count)
    return Images(
        records.take(count).apply(tf.data.experimental.assert_cardinality(count)),
        count,
        class_names=_class_names(builder.name, label),
        decode=lambda contents: tf.ensure_shape(_decode(contents), (height, width, 3)),
        shuffle_buffer=10_000,
    )


def _class_names(name: str, label: tfds.features.ClassLabel) -> tuple[str, ...]:
    """Returns the names of the classes; those of a copy of a known data set may only be numbered."""
    names, known = tuple(label.names), find_dataset(name)
    numbered = names == tuple(str(i) for i in range(len(names)))
    return known.class_names if numbered and known and known.class_names else names


def _fetch(builder: tfds.core.DatasetBuilder, name: str, folder: str, verbose: bool) -> None:
    """Fetches and prepares a data set; a failure leaves no data set behind."""
    try:
        _check_connection(builder, folder)
        with open(os.devnull, "w") as silence:
            shown = sys.stderr if verbose else silence
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                builder.download_and_prepare()
    except (requests.RequestException, ConnectionError, tfds.core.download.util.DownloadError) as error:
        raise ConnectionError(
            f"The data set {name!r} is not in {folder!r}, and cannot be fetched ({_in_one_line(error)}): connect to "
            "the internet, name its folder (--data-dir), or run examples/digits.py, which needs no download."
        ) from error
    except AssertionError as error:  # archives that TFDS may not fetch, such as ImageNet's
        raise FileNotFoundError(f"TFDS cannot fetch the data set {name!r}: {_in_one_line(error)}") from error


def _check_connection(builder: tfds.core.DatasetBuilder, folder: str) -> None:
    """Refuses at once if no host of the data set answers, where TFDS would ask ten times, for minutes.

    Files that may be there already are left to TFDS.
    """
    urls = {urlsplit(url).netloc: url for url in builder.url_infos or () if url.startswith("http")}
    if not urls or builder.MANUAL_DOWNLOAD_INSTRUCTIONS or any(pathlib.Path(folder, "downloads").rglob("*.INFO")):
        return
    for url in urls.values():
        with contextlib.suppress(requests.RequestException):
            requests.head(url, timeout=10)
            return
    raise ConnectionError(f"there is no connection to {' or '.join(urls)}")


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def load_folder(directory: str | os.PathLike[str], limit: int | None = None) -> Images:
    """Images of a folder that has one folder per class: `directory/CLASS/IMAGE.jpg`.

    Classes are the folders in the order of their names. Files are JPEG, PNG, GIF, BMP or WebP, whichever of these their
    suffix names; hidden files are skipped, and others with a warning. Photographs are turned by their EXIF orientation.

    Args:
        directory: the folder.
        limit: keep only the first `limit` examples. Their order is the first file of each class, then the second of
            each, and so on: the classes stay balanced.

    Returns:
        `Images`. Reading a damaged file fails with its path.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no class folders or one of these no images, or for a limit below 1.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     for name in ("cat", "dog"):
        ...         pathlib.Path(directory, name).mkdir()
        ...         Image.new("RGB", (8, 8)).save(pathlib.Path(directory, name, "1.png"))
        ...     images = load_folder(directory)
        >>> images.count, images.class_names
        (2, ('cat', 'dog'))
    """
    if limit is not None:
        check_positive_int("limit", limit)
    files, class_names = _files(directory)
    return _images_of_files(directory, files[:limit], class_names)


def load_folders(directory: str | os.PathLike[str], validation_part: float = 0.1, seed: int = 0) -> dict[str, Images]:
    """Images to train on and images to evaluate, from one folder.

    A folder with `train` and one of `val`, `validation` and `test`, of class folders each, gives these two. Of any
    other, which has class folders itself, a part of each class is set aside.

    Args:
        directory: the folder.
        validation_part: share of each class in (0, 1) that is set aside, at least one image.
        seed: decides which images are set aside.

    Returns:
        A dictionary of `Images`: `"train_images"` and `"test_images"`, as `fit` takes them.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no such folders, a class has fewer than two images, or the part is out of its range.
    """
    directory = pathlib.Path(directory)
    evaluated = evaluated_folder(directory)
    if evaluated != directory:
        return {"train_images": load_folder(directory / "train"), "test_images": load_folder(evaluated)}
    if not 0 < validation_part < 1:
        raise ValueError(f"validation_part must be in (0, 1), got validation_part={validation_part}.")
    files, class_names = _files(directory)
    generator, aside = np.random.default_rng(seed), set()
    for label, name in enumerate(class_names):
        members = [file for file in files if file[1] == label]
        if len(members) < 2:
            raise ValueError(f"The class {name!r} in {str(directory)!r} needs at least two images, got {len(members)}.")
        count = min(max(round(validation_part * len(members)), 1), len(members) - 1)
        aside |= {members[i] for i in generator.permutation(len(members))[:count]}
    split = {"validation_part": validation_part, "seed": seed}
    parts = {"train_images": [file for file in files if file not in aside],
             "test_images": [file for file in files if file in aside]}  # fmt: skip
    return {name: _images_of_files(directory, part, class_names, **split) for name, part in parts.items()}


def evaluated_folder(directory: str | os.PathLike[str]) -> pathlib.Path:
    """The folder beside `train` whose images are evaluated, which must be there; a folder without `train` itself."""
    directory = pathlib.Path(directory)
    if not (directory / "train").is_dir():
        return directory
    for folder in (directory / name for name in VALIDATION_FOLDERS):
        if folder.is_dir():
            return folder
    raise ValueError(
        f"{str(directory)!r} has train, but none of {', '.join(VALIDATION_FOLDERS)} beside it; add one, or put "
        "the class folders of train into the folder itself to have a part set aside."
    )


def _files(directory: str | os.PathLike[str]) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The paths and labels of a folder's images, and the names of its classes."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"The image folder {str(directory)!r} does not exist.")
    classes = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{str(directory)!r} holds no class folders; load_folder reads {directory.name}/CLASS/IMAGE.")
    files = [sorted(path for path in folder.iterdir() if not path.name.startswith(".")) for folder in classes]
    images = [[path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES] for paths in files]
    known = f"images are {' '.join(IMAGE_SUFFIXES)}"
    if not any(images):
        raise ValueError(f"The {len(classes)} class folders of {str(directory)!r} hold no images; {known}.")
    for folder, paths in zip(classes, images, strict=True):
        if not paths:
            raise ValueError(f"The class folder {str(folder)!r} holds no images; {known}. Remove it, or add some.")
    if skipped := sorted({*sum(files, [])} - {*sum(images, [])}):
        which = f"{len(skipped)} of the files in {str(directory)!r}"
        warnings.warn(f"{which} are skipped, such as {skipped[0].name!r}; {known}.", stacklevel=3)
    turns = [(turn, label, str(path)) for label, paths in enumerate(images) for turn, path in enumerate(paths)]
    return [(path, label) for _, label, path in sorted(turns)], tuple(path.name for path in classes)


def _images_of_files(
    directory: str | os.PathLike[str], files: list[tuple[str, int]], class_names: tuple[str, ...], **split: float
) -> Images:
    paths, labels = zip(*files, strict=True)
    names = sorted(os.path.relpath(path, directory).replace(os.sep, "/") for path in paths)
    origin = {"folder": str(directory), "files": hashlib.sha256("\n".join(names).encode()).hexdigest(), **split}
    records = tf.data.Dataset.from_tensor_slices(([*paths], tf.constant(labels, tf.int64)))
    return Images(records, len(files), class_names, decode=_decode_file, origin=origin)


def _decode(contents: tf.Tensor | bytes) -> tf.Tensor:
    # decode_jpeg reads PNG and GIF too. The accurate transform is Pillow's default; TensorFlow's is the fast one.
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_file(path: tf.Tensor) -> tf.Tensor:
    # Pillow, which takes twice the time, decodes what TensorFlow does not: other formats, photographs that must be
    # turned, and files that do not end as their format does, as they are cut, empty, no images, or harmlessly longer.
    contents = tf.io.read_file(path)
    begin, head = tf.strings.substr(contents, 0, 2), tf.strings.substr(contents, 0, HEAD_BYTES)
    end = tf.strings.substr(contents, tf.maximum(tf.strings.length(contents) - 2, 0), 2)
    whole = tf.reduce_any((begin == BEGINNINGS) & (end == ENDS))
    upright = tf.strings.regex_replace(head, TURNED, "", replace_global=False) == head
    image = tf.cond(
        whole & upright,
        lambda: _decode(contents),
        lambda: tf.numpy_function(_decode_with_pillow, [contents, path], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_with_pillow(contents: bytes, path: bytes) -> np.ndarray:
    try:
        if contents.startswith(b"\x89PNG"):
            _decode(contents)  # refuses a PNG file that lacks its end, which Pillow reads as far as it goes
        return decode_image(io.BytesIO(contents))
    except Exception as error:  # Pillow's error depends on where a file is damaged
        raise ValueError(f"The image file {os.fsdecode(path)!r} cannot be read: {error}") from None
