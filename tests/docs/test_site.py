"""The site: built with warnings as errors, complete, without another host, and silent in a browser's console."""

import functools
import html.parser
import http.server
import importlib
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.backend_independent

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a browser fetches by itself, by tag, and the attribute that says where.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
PUBLIC = ("", ".layers", ".models", ".weights", ".data", ".training", ".export", ".profiling", ".visualize")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site's folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


class Reader(html.parser.HTMLParser):
    """Collects what a page makes a browser fetch, and the names that its parts have."""

    def __init__(self, page):
        super().__init__()
        self.fetched, self.ids = [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.append(attributes.get("id"))
        self.fetched.append(attributes.get(FETCHED.get(tag)))


def test_nothing_comes_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    fetched = {address for page in pages for address in Reader(page).fetched if address}
    fetched |= {address for sheet in site.rglob("*.css") for address in re.findall(r"url\((.*?)\)", sheet.read_text())}
    assert any(address.endswith(".js") for address in fetched)
    assert [address for address in fetched if re.match(r"[\"']?(https?:)?//", address)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_its_reference(site, module):
    pages = (site / "api").glob("*.html")
    documented = {id.rpartition(".")[2] for page in pages for id in Reader(page).ids if id}
    package = importlib.import_module(f"keras_mixers{module}")
    public = {
        name for name in package.__all__ if not (name.isupper() or isinstance(getattr(package, name), ModuleType))
    }
    assert sorted(public - documented) == []


class Handler(http.server.SimpleHTTPRequestHandler):
    missing = []

    def log_error(self, *_):
        self.missing.append(self.path)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def console(site, tmp_path_factory):
    """Open a page in a headless browser, and give what its console says, what it missed, and what the page then is."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed, in which the pages would be opened")
    profile = tmp_path_factory.mktemp("profile")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def console(page):
        Handler.missing.clear()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"]
        command += [f"http://127.0.0.1:{server.server_port}/{page}"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        said = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
        return said, list(Handler.missing), shown.stdout

    yield console
    server.shutdown()
    server.server_close()


def test_the_console_of_each_page_is_empty(site, console):
    for page in sorted(site.rglob("*.html")):
        said, missing, shown = console(page.relative_to(site))
        assert (said, missing) == ([], []), page
        assert "data-md-color-scheme" in shown  # not a page of the browser's own


def test_a_fault_is_seen_in_the_console(site, console):
    (site / "fault.htm").write_text("<script src='missing.js'></script><script>missing()</script>")
    (line,), missing, _ = console("fault.htm")
    assert "missing is not defined" in line
    assert "/missing.js" in missing
