import functools
import http.server
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from drawn_images import scenes
from PIL import Image

from keras_mixers.data import DATASETS, load_folder, load_tfds
from keras_mixers.data.sources import Images
from keras_mixers.models.image_files import read_image

pytestmark = pytest.mark.backend_independent


class TinyColors(tfds.core.GeneratorBasedBuilder):
    """Ten images of one colour each, whose red is the label, from a file that the test serves."""

    VERSION = tfds.core.Version("1.0.0")
    url = None

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=["a", "b"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        path = dl_manager.download(self.url)
        return {"train": self._generate_examples(path, 10), "test": self._generate_examples(path, 4)}

    def _generate_examples(self, path, count):
        for i, red in enumerate(np.load(path)["reds"][:count]):
            yield i, {"image": np.full((8, 8, 3), (red, i, 0), np.uint8), "label": int(red)}


class TinyWords(tfds.core.GeneratorBasedBuilder):
    """A data set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "a"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of a server on this machine, from which the data set is fetched."""
    served = tmp_path_factory.mktemp("served")
    np.savez(served / "reds.npz", reds=np.arange(10) % 2)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    TinyColors.url = f"http://127.0.0.1:{server.server_port}/reds.npz"
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def data_dir(served, tmp_path_factory):
    """A TFDS folder that load_tfds has filled by a download over HTTP."""
    data_dir = tmp_path_factory.mktemp("tfds")
    load_tfds("tiny_colors", "train", data_dir)
    return data_dir


def test_tfds_images_and_labels_belong_together(data_dir):
    images = load_tfds("tiny_colors", "train", data_dir)
    assert (images.count, images.num_classes, images.class_names) == (10, 2, ("a", "b"))
    assert images.examples.element_spec == (tf.TensorSpec((8, 8, 3), tf.uint8), tf.TensorSpec((), tf.int64))
    examples = [*images.examples.as_numpy_iterator()]
    assert sorted(image[0, 0, 1] for image, _ in examples) == [*range(10)]
    assert all((image[..., 0] == label).all() for image, label in examples)


@pytest.mark.parametrize(
    ("written", "read"),
    [(None, DATASETS["cifar10"].class_names), (["b", "a", *"cdefghij"], ("b", "a", *"cdefghij"))],
)
def test_classes_that_a_copy_only_numbers_have_the_names_of_the_table(written, read, tmp_path):
    builder = tfds.builder("cifar10", data_dir=tmp_path)
    if written:
        builder.info.features["label"].names = written
    example = {"id": "0", "image": np.zeros((32, 32, 3), "uint8"), "label": 3}
    builder._split_generators = lambda manager: {"train": [(0, example)]}
    builder.download_and_prepare()
    assert load_tfds("cifar10", "train", tmp_path).class_names == read


def test_tfds_splits_slices_and_limits(data_dir):
    def greens(split, limit=None):
        images = load_tfds("tiny_colors", split, data_dir, limit=limit)
        greens = [int(image[0, 0, 1]) for image, _ in images.examples]
        assert images.count == len(greens) == images.examples.cardinality()
        return greens

    everything = greens("train")
    assert len(greens("test")) == 4
    assert greens("train[:30%]") == greens("train", limit=3) == everything[:3]
    assert greens("train", limit=99) == everything


def test_tfds_data_set_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"'tiny_colors' is not in '.*{tmp_path.name}', and downloads are"):
        load_tfds("tiny_colors", "train", tmp_path, download=False)


def test_tfds_data_set_without_a_connection(tmp_path, monkeypatch):
    """It is told soon, with the ways on, and nothing is left."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"'cifar10' is not in .*no connection to .*--data-dir.*examples/digits"):
        load_tfds("cifar10", "train", tmp_path)
    assert time.monotonic() - started < 30
    assert not list(tmp_path.rglob("*"))


def test_tfds_download_that_breaks_off_leaves_no_data_set(served, tmp_path, capfd):
    path = served / "reds.npz"
    whole = path.read_bytes()
    path.rename(served / "away.npz")
    with pytest.raises(ConnectionError, match=r"'tiny_colors' is not in .*cannot be fetched \(.*404"):
        load_tfds("tiny_colors", "train", tmp_path)
    path.write_bytes(whole[:200])  # it comes, and is damaged
    with pytest.raises(zipfile.BadZipFile):
        load_tfds("tiny_colors", "train", tmp_path)
    with pytest.raises(FileNotFoundError, match="downloads are switched off"):
        load_tfds("tiny_colors", "train", tmp_path, download=False)
    shutil.rmtree(tmp_path / "downloads")
    path.write_bytes(whole)
    capfd.readouterr()
    assert load_tfds("tiny_colors", "train", tmp_path).count == 10
    shown = capfd.readouterr()
    assert "Downloading and preparing" in shown.err  # standard output is for results
    assert not shown.out


def test_tfds_archives_that_it_may_not_fetch(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot fetch the data set 'imagenet2012': Manual directory .*manual"):
        load_tfds("imagenet2012", "train", tmp_path)


@pytest.mark.parametrize("name", ["cifar11", "cifar-10", "cifar11:3.0.2", "qqqqqqqqqq"])
def test_tfds_unknown_name_gets_the_nearest_ones(name):
    advice = "did you mean .*cifar10" if "cifar" in name else r"tfds.list_builders\(\) lists the names"
    with pytest.raises(ValueError, match=f"no data set '{name}'; {advice}"):
        load_tfds(name, "train")


def test_tfds_unknown_split(data_dir):
    with pytest.raises(ValueError, match="'tiny_colors' has no split 'val'; its splits are train, test"):
        load_tfds("tiny_colors", "val", data_dir)


def test_tfds_data_set_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"needs an image and a class label, but its features are \['text'\]"):
        load_tfds("tiny_words", "train", tmp_path, download=True)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one(tmp_path, limit):
    for load in (functools.partial(load_tfds, "tiny_colors", "train"), functools.partial(load_folder, tmp_path)):
        with pytest.raises(ValueError, match=f"limit must be a whole number of at least 1, got limit={limit}"):
            load(limit=limit)


@pytest.fixture
def folder(tmp_path):
    """Class folders "bee" (3 images) and "ant" (2 images) of PNG files of one colour, and what is no image."""
    for name, count in {"bee": 3, "ant": 2, ".hidden": 1}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (9, 7 + i), (i, len(name), 0)).save(tmp_path / name / f"{i}.PNG")
    (tmp_path / "bee" / "._0.png").write_bytes(b"left by another system")
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no class")
    return tmp_path


def test_folder_classes_are_sorted_and_taken_in_turn(folder):
    images = load_folder(folder)
    assert (images.count, images.class_names) == (5, ("ant", "bee"))
    examples = [*images.examples.as_numpy_iterator()]
    assert [(int(image[0, 0, 0]), int(label)) for image, label in examples] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]
    assert [image.shape for image, _ in examples] == [(7, 9, 3), (7, 9, 3), (8, 9, 3), (8, 9, 3), (9, 9, 3)]


def test_folder_limit_keeps_classes_balanced(folder):
    images = load_folder(folder, limit=4)
    assert images.count == images.examples.cardinality() == 4
    assert [int(label) for _, label in images.examples] == [0, 1, 0, 1]


def test_folder_decodes_jpeg_as_pillow_does(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a" / "1.jpg", quality=90)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a" / "2.jpeg", quality=90)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a" / "3.png")
    Image.fromarray(pixels).quantize(16).save(tmp_path / "a" / "4.gif")
    for path, (image, _) in zip(sorted((tmp_path / "a").iterdir()), load_folder(tmp_path).examples, strict=True):
        np.testing.assert_array_equal(image, Image.open(path).convert("RGB"))


def test_folder_decodes_every_format_by_its_contents_as_prediction_does(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = scenes(1, 40)[0][:, :30]
    for name, kind in {"1.webp": "WEBP", "2.bmp": "BMP", "3.jpg": "WEBP", "4.png": "JPEG", "5.jpg": "GIF"}.items():
        Image.fromarray(pixels).save(tmp_path / "a" / name, format=kind)
    deep = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50
    Image.fromarray(deep).save(tmp_path / "a" / "6.png")
    for path, (image, _) in zip(sorted((tmp_path / "a").iterdir()), load_folder(tmp_path).examples, strict=True):
        np.testing.assert_array_equal(image, read_image(path))
    np.testing.assert_array_equal(image, np.repeat(deep[..., None] >> 8, 3, axis=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_photographs_are_turned_as_their_exif_orientation_says(tmp_path, orientation, suffix, endian):
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    path = tmp_path / "a" / f"1.{suffix}"
    Image.fromarray(scenes(1, 40)[0][:, :30]).save(path, exif=exif)
    stored = np.asarray(Image.open(path))
    turned = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    ((image, _),) = load_folder(tmp_path).examples
    np.testing.assert_array_equal(image, turned)
    np.testing.assert_array_equal(read_image(path), turned)


def test_files_that_are_skipped_are_told_and_a_class_without_images_is_refused(folder):
    with pytest.warns(UserWarning, match="1 of the files in .* are skipped, such as 'notes.txt'; images are .bmp"):
        load_folder(folder)
    (folder / "cat").mkdir()
    (folder / "cat" / "1.heic").write_bytes(b"from a phone")
    with pytest.raises(ValueError, match="The class folder '.*cat' holds no images; images are .bmp"):
        load_folder(folder)


@pytest.mark.parametrize("damage", ["nothing", "no image at all", "cut"])
def test_damaged_file_is_named(folder, damage):
    path = folder / "bee" / "1.PNG"
    path.write_bytes({"nothing": b"", "no image at all": b"<html>", "cut": path.read_bytes()[:40]}[damage])
    with pytest.raises(tf.errors.InvalidArgumentError, match="The image file '.*bee/1.PNG' cannot be read"):
        list(load_folder(folder).examples)


def test_image_with_bytes_after_its_end_is_read(folder):
    path = folder / "bee" / "1.PNG"
    expected = [image.numpy() for image, _ in load_folder(folder).examples]
    path.write_bytes(path.read_bytes() + b"more")
    for (image, _), before in zip(load_folder(folder).examples, expected, strict=True):
        np.testing.assert_array_equal(image, before)


def test_folder_that_is_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no class folders; load_folder reads .*/CLASS/IMAGE"):
        load_folder(tmp_path)
    (tmp_path / "bee").mkdir()
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"hold no images; images are .bmp .gif .jpeg .jpg .png .webp"):
        load_folder(tmp_path)


def test_folder_of_photographs(imagenette):
    images = load_folder(imagenette / "val", limit=20)
    assert images.num_classes == 10
    labels = []
    for image, label in images.examples:
        assert min(image.shape[:2]) > 50
        assert image.shape[2] == 3
        labels.append(int(label))
    assert labels == [*range(10)] * 2


def test_cached_images_are_read_once(tmp_path):
    reads = []

    def read(record):
        reads.append(int(record))
        return np.full((2, 2, 3), record, np.uint8)

    def decode(record):
        return tf.ensure_shape(tf.numpy_function(read, [record], tf.uint8), (2, 2, 3))

    images = Images(tf.data.Dataset.range(3).map(lambda i: (i, i)), 3, ("a", "b", "c"), decode).cached()
    assert [int(image[0, 0, 0]) for _ in range(2) for image, _ in images.examples] == [0, 1, 2] * 2
    assert sorted(reads) == [0, 1, 2]
