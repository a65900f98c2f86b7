"""The page of a network: every figure, its table of layers, and nothing from elsewhere."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from small_networks import small

import keras_mixers
from keras_mixers.visualize import write_page

pytest.importorskip("matplotlib", reason="matplotlib, of the extra visualize, is not installed")

pytestmark = pytest.mark.backend_independent
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype("uint8")
HISTORY = [{"epoch": 1, "loss": 1.9, "val_loss": 1.8}]


class Page(html.parser.HTMLParser):
    """The images, cells and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.cells, self.addresses, self.open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes, self.open = dict(attributes), tag
        self.images += [attributes["src"]] if tag == "img" else []
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]

    def handle_data(self, text):
        if self.open == "td":
            self.cells.append(text)

    def handle_endtag(self, tag):
        self.open = None


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(keras_mixers.create_model("splitmixer_i_256_8", dim=12, blocks=2))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    return write_page(model, IMAGE, tmp_path_factory.mktemp("pages") / "page", history=HISTORY)


def test_shows_every_figure_and_every_layer(model, written):
    page = Page(written.read_text())
    assert sorted(page.images) == sorted(path.name for path in written.parent.glob("*.png"))
    assert len(page.images) == 6
    assert all(re.fullmatch(r"[a-z_]+\.png|data:,", address) for address in page.addresses)
    profile = keras_mixers.profile(model, (32, 32, 3) if model.input_shape[-1] == 3 else (3, 32, 32))
    for layer in profile.layers:
        place = page.cells.index(layer.name)
        assert page.cells[place + 3 : place + 5] == [f"{layer.params:,}", f"{layer.macs:,}"]
    assert f"{profile.params:,} trainable parameters, {profile.macs:,} multiply" in written.read_text()
    assert "<h1>splitmixer_i_256_8_dim_12_blocks_2</h1>" in written.read_text()
    assert not {"savings.png", "accuracy_against_params.png"} & set(page.images)  # of other networks than this one
    # A caption comes right before its figure: on a phone, a figure after it fills the screen.
    captioned = re.findall(r'<figure><figcaption>[^<]+</figcaption><img src="(\w+\.png)"', written.read_text())
    assert captioned == page.images


def test_opens_in_a_browser_without_an_error(written):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, written.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert len(Page(done.stdout).images) == 6
    assert "CONSOLE" not in done.stderr


def test_leaves_out_what_a_network_does_not_have(randomize, tmp_path):
    model = randomize(small(include_top=False))
    image = np.random.default_rng(0).normal(size=(16, 16, 3)).astype("float32")
    page = Page(write_page(model, image, tmp_path / "page").read_text())
    assert "class_maps.png" not in page.images
    assert "training_curves.png" not in page.images


def test_of_a_network_that_mixes_all_positions(randomize, tmp_path):
    image = np.random.default_rng(0).normal(size=(8, 10, 3)).astype("float32")
    page = Page(write_page(randomize(small("ResMLP")), image, tmp_path / "page").read_text())
    assert "token_kernels.png" in page.images
    assert "depthwise_kernels.png" not in page.images


def test_is_written_whole_or_not_at_all(model, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="folder must be new or empty"):
        write_page(model, IMAGE, tmp_path / "full")
    with pytest.raises(FileNotFoundError, match="There is no image at 'no.png'"):
        write_page(model, "no.png", tmp_path / "page")

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("keras_mixers.visualize.page._html", fail)
    with pytest.raises(OSError, match="/page' cannot be written: No space left on device; nothing is left of it"):
        write_page(model, IMAGE, tmp_path / "page")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
