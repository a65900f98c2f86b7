"""What arrives from the hub is right or is refused, whatever happens on the way."""

import contextlib
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stand_in_hub import StandInHub, _git_sha1, _sha256

from keras_mixers.weights import hub as hub_module
from keras_mixers.weights.hub import download

pytestmark = pytest.mark.backend_independent

pytest.importorskip("huggingface_hub")

SAFETENSORS, PICKLE, CONFIG = (np.random.default_rng(i).bytes(40_000 + i) for i in range(3))
REPOSITORIES = {
    "timm/mixer": {"model.safetensors": SAFETENSORS, "pytorch_model.bin": PICKLE, "a/config.json": CONFIG},
    "timm/old": {"pytorch_model.bin": PICKLE},
    "timm/empty": {"readme.md": CONFIG},
    "timm/gated": {"model.safetensors": SAFETENSORS},
}
# A large file, which its sha256 names, and a small one, which git's sha1 names.
FILES = {"hf://timm/mixer": SAFETENSORS, "hf://timm/mixer/a/config.json": CONFIG}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, cache):
    """A hub that this process takes for huggingface.co, with an empty cache."""
    with StandInHub(REPOSITORIES, gated={"timm/gated"}) as hub:
        hub.use(monkeypatch, cache)
        yield hub


@pytest.fixture
def small_steps(monkeypatch):
    """huggingface_hub resumes a cut download after a second, from the last whole chunk, for these small files."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def go_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def assert_fails(name, kind, what):
    """One sentence that names the argument, as an error of this very kind."""
    with pytest.raises(kind, match=what) as caught:
        download(name)
    assert caught.type is kind
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def contents(hub):
    """The requests for contents, with the ranges that they ask for."""
    return [request for request in hub.requests if request.startswith("GET")]


@pytest.mark.parametrize("revision", ["", "@main", f"@{StandInHub.COMMIT}"])
@pytest.mark.parametrize(("file", "content"), REPOSITORIES["timm/mixer"].items())
def test_a_file_is_downloaded_once(hub, cache, revision, file, content):
    name = f"hf://timm/mixer{revision}/{file}"
    path = download(name)
    assert path.read_bytes() == content
    assert cache in path.parents
    assert path.parts[-1 - len(Path(file).parts)] == StandInHub.COMMIT
    assert download(name) == path
    assert len(contents(hub)) == 1


def test_default_file_is_the_one_that_the_repository_has(hub, monkeypatch):
    assert download("hf://timm/mixer").name == "model.safetensors"
    assert download("hf://timm/old").name == "pytorch_model.bin"
    neither = "has no model.safetensors and no pytorch_model.bin; .*/tree/main"
    assert_fails("hf://timm/empty", FileNotFoundError, neither)
    go_offline(monkeypatch)
    assert download("hf://timm/mixer").name == "model.safetensors"
    assert download("hf://timm/old").name == "pytorch_model.bin"


def in_its_own_process(before="pass", **environment):
    """Downloads as a user does, with what huggingface_hub reads from the environment."""
    code = f"import runpy; {before}; path = runpy.run_path({hub_module.__file__!r})['download']('hf://timm/mixer');"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-c", f"{code} print(path, len(path.read_bytes()))"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_as_a_user_calls_it(tmp_path):
    places = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    with StandInHub(REPOSITORIES) as hub:
        first = in_its_own_process(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", **places)
    assert first.stdout.startswith(str(tmp_path / "hub" / "models--timm--mixer")), first.stderr
    assert first.stdout.endswith(f"model.safetensors {len(SAFETENSORS)}\n")
    assert in_its_own_process(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", **places).stdout == first.stdout


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("trouble", ["offline", "unreachable", "HTTP 500", "gated"])
def test_cached_file_serves_where_the_hub_does_not(hub, cache, monkeypatch, name, trouble):
    path = download(name)
    hub.requests.clear()
    if trouble == "offline":
        go_offline(monkeypatch)
    elif trouble == "unreachable":
        hub.close()
    elif trouble == "gated":
        hub.gated = {"timm/mixer"}
    else:
        hub.fault = trouble
    assert download(name) == path
    assert contents(hub) == []
    assert hub.requests == [] or trouble not in ("offline", "unreachable")


def test_hub_that_is_not_there(hub, monkeypatch):
    start = time.monotonic()
    hub.fault = "HTTP 500"
    assert_fails("hf://timm/mixer", ConnectionError, f"{hub.url} answers HTTP 500; call again later")
    hub.close()
    failed = f"connection to {hub.url} failed .*refused.*; check it and call again"
    assert_fails("hf://timm/mixer", ConnectionError, failed)
    go_offline(monkeypatch)
    assert_fails("hf://timm/mixer", ConnectionError, "not cached in .*cache, and HF_HUB_OFFLINE is set; unset that")
    # huggingface_hub alone retries for 23 seconds, or for minutes where nothing answers.
    assert time.monotonic() - start < 10


def test_what_the_hub_does_not_have(hub, cache):
    assert_fails("hf://timm/mixr", FileNotFoundError, f"{hub.url} has no such repository; check the name")
    assert_fails("hf://timm/mixer@v9", FileNotFoundError, f"no such revision; {hub.url}/timm/mixer lists its branches")
    for at, revision in (("", "main"), (f"@{hub.COMMIT}", hub.COMMIT)):
        lacks = f"it has no model.pt; {hub.url}/timm/mixer/tree/{revision} lists its files"
        assert_fails(f"hf://timm/mixer{at}/model.pt", FileNotFoundError, lacks)
    assert contents(hub) == []


def test_hub_that_refuses(hub, monkeypatch):
    gated = f"gated; ask for access at {hub.url}/timm/gated, then set HF_TOKEN"
    assert_fails("hf://timm/gated", PermissionError, gated)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert download("hf://timm/gated").read_bytes() == SAFETENSORS
    hub.fault = "HTTP 403"
    assert_fails("hf://timm/mixer", PermissionError, rf"{hub.url} refuses it \(HTTP 403\); set HF_TOKEN to a token")


@pytest.mark.parametrize(
    "name",
    ["hf://", "hf://ti mm/mixer", "hf://mixer", "hf://timm/", "hf:timm/mixer", "timm/mixer",
     "https://huggingface.co/timm/mixer", "hf://timm/mixer@", "hf://timm/mixer@main/", "hf://timm/mixer/",
     "hf://timm/mixer/../other/model.safetensors", "hf://timm/mixer/a//b", "hf://timm/mixer/a\\b",
     "hf://timm/mixer/a\nb", "hf://timm/mixer@../x"],
)  # fmt: skip
def test_malformed_name(hub, name):
    assert_fails(name, ValueError, r"is no name on the hub; it would be hf://OWNER/REPO\[@REVISION\]\[/FILE\]")
    assert hub.requests == []


def test_names_that_the_hub_judges(hub):
    assert_fails("hf://timm/mixer--1", ValueError, "a repository cannot have this name .*; check its spelling")
    assert hub.requests == []
    assert_fails("hf://timm/mixer@refs/pr/1/model.bin", FileNotFoundError, "has no such revision")
    assert hub.requests == ["HEAD /timm/mixer/resolve/refs%2Fpr%2F1/model.bin"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["cut", "refused", "wrong"])
def test_failed_download_leaves_nothing_that_passes_for_the_file(hub, monkeypatch, small_steps, name, fault):
    hub.fault = fault
    if fault == "wrong":
        assert_fails(name, OSError, "damaged on its way .*; it is removed, and the next call downloads it again")
    else:
        what = {"cut": f"the connection to {hub.url} failed", "refused": f"{hub.url} answers HTTP 503"}[fault]
        assert_fails(name, ConnectionError, what)
    with monkeypatch.context() as offline:
        go_offline(offline)
        assert_fails(name, ConnectionError, "not cached")
    hub.fault = None
    assert download(name).read_bytes() == FILES[name]


def resume(name):
    """Resumes a cut download in the same call, or in the next one where huggingface_hub is older."""
    try:
        return download(name)
    except ConnectionError:
        return download(name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["cut once", "wrong cut once"])
def test_download_that_is_cut_once_resumes_and_is_verified(hub, small_steps, name, fault):
    hub.fault = fault
    damaged = pytest.raises(OSError, match="damaged on its way .*; it is removed, and the next call downloads it again")
    with damaged if fault == "wrong cut once" else contextlib.nullcontext():
        resume(name)
    first, second = contents(hub)
    assert re.fullmatch(rf"{first} bytes=2000[01]-", second)
    assert download(name).read_bytes() == FILES[name]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "one bit":
        content[len(content) // 3] ^= 1
    else:
        del content[len(content) // 3 :]
    path.resolve().chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["one bit", "shorter"])
@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
def test_damage_on_the_disk(hub, monkeypatch, name, how, offline):
    path = download(name)
    blob = path.resolve()
    damage(path, how)
    digest = {64: _sha256, 40: _git_sha1}[len(blob.name)](path.read_bytes())
    with monkeypatch.context() as patch:
        if offline:
            go_offline(patch)
        assert_fails(name, OSError, f"hash is {digest}, but should be {blob.name}.; it is removed, and the next call")
    assert not os.path.lexists(path)
    assert not blob.exists()
    assert download(name).read_bytes() == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_cache_without_symlinks(hub, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)
    path = download(name)
    assert not path.is_symlink()
    with monkeypatch.context() as patch:
        go_offline(patch)
        assert download(name) == path
    damage(path, "one bit")
    assert_fails(name, OSError, "it is removed")
    assert download(name).read_bytes() == FILES[name]
    hub.fault = "wrong"
    path.unlink()
    assert_fails(name, OSError, "it is removed")
    assert not path.exists()


def test_content_in_a_store_that_repositories_share(hub, cache):
    """huggingface_hub 2 moves what comes by Xet there, under another hash, and links to it by its size alone."""
    path = download("hf://timm/mixer")
    blob, stored = path.resolve(), cache / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(os.path.relpath(stored, blob.parent))
    assert download("hf://timm/mixer") == path
    damage(path, "one bit")
    assert_fails("hf://timm/mixer", OSError, f"should be {blob.name}.; it is removed")
    assert not any(os.path.lexists(file) for file in (path, blob, stored))
    assert download("hf://timm/mixer").read_bytes() == SAFETENSORS


def test_damaged_file_that_cannot_be_removed(hub, monkeypatch):
    path = download("hf://timm/mixer")
    damage(path, "one bit")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert_fails("hf://timm/mixer", OSError, f"delete '{re.escape(str(path.resolve()))}', which this process may not")


@pytest.mark.parametrize("etag", ["v1", "ab" * 16])
def test_hub_that_gives_no_hash(hub, monkeypatch, etag):
    monkeypatch.setattr("stand_in_hub._sha256", lambda content: etag)
    unverified = f"{hub.url} gives no hash to verify it .*'{etag}'.*; check HF_ENDPOINT"
    for _ in range(2):
        assert_fails("hf://timm/mixer", OSError, unverified)


def test_cache_that_is_no_folder(hub, cache):
    cache.write_text("a file")
    assert_fails("hf://timm/mixer", OSError, f"the cache {cache} fails .*; free it, or set HF_HOME")


def test_full_disk(hub, cache):
    """The system refuses to let a file grow."""
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    done = in_its_own_process(limit, HF_ENDPOINT=hub.url, HF_HUB_CACHE=str(cache))
    assert done.stderr.splitlines()[-1].startswith(
        f"OSError: 'hf://timm/mixer' cannot be downloaded: the cache {cache} fails (OSError: [Errno 27] "
    )
    assert download("hf://timm/mixer").read_bytes() == SAFETENSORS


def test_importing_brings_no_huggingface_hub(monkeypatch):
    """Nor does it need one, until something is downloaded; Keras itself imports it where it is installed."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    module = runpy.run_path(hub_module.__file__)
    with pytest.raises(ValueError, match="is no name on the hub"):
        module["download"]("timm/mixer")
    missing = r'needs huggingface_hub, .*: pip install "keras-mixers\[hub\]" installs it'
    assert_fails("hf://timm/mixer", ImportError, missing)
