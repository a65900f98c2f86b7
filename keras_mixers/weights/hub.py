"""Weights from the Hugging Face hub: downloaded once, cached, and verified by their hash."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

FILES = ("model.safetensors", "pytorch_model.bin")
_SEGMENT = r"(?!\.\.?(?:/|$))[^/\\\x00-\x1f]+"
NAME = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/pr/\d+|[^/@\s.][^/@\s]*))?"
    rf"(?:/(?P<file>{_SEGMENT}(?:/{_SEGMENT})*))?"
)

UNREACHABLE = "the connection to {hub} failed ({reason}); check it and call again"
# What each error of huggingface_hub means here. The first that fits counts: some are kinds of later ones.
REMEDIES = (
    ("HFValidationError", ValueError, "a repository cannot have this name ({reason}); check its spelling"),
    ("GatedRepoError", PermissionError, "its repository is gated; ask for access at {page}, then set HF_TOKEN"),
    ("RepositoryNotFoundError", FileNotFoundError, "{hub} has no such repository; check the name, or set HF_TOKEN"),
    ("RevisionNotFoundError", FileNotFoundError, "it has no such revision; {page} lists its branches and tags"),
    ("OfflineModeIsEnabled", ConnectionError, "it is not cached in {cache}, and HF_HUB_OFFLINE is set; unset that"),
    ("LocalEntryNotFoundError", ConnectionError, UNREACHABLE),
    ("EntryNotFoundError", FileNotFoundError, "it has no {files}; {page}/tree/{revision} lists its files"),
    ("FileMetadataError", OSError, "{hub} gives no hash to verify it ({reason}); check HF_ENDPOINT"),
)


def download(name: str) -> Path:
    """Downloads a file from the Hugging Face hub, unless it is cached, and verifies its hash.

    Cache, token, mirror and offline mode are huggingface_hub's own: `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`,
    `HF_HUB_OFFLINE`. Without the hub, a cached file is verified by the hash that names it in the cache; a cache without
    symlinks (some Windows systems) keeps no hash, and its files are not verified.

    Args:
        name: `"hf://OWNER/REPO[@REVISION][/FILE]"`. Without FILE it is model.safetensors or else pytorch_model.bin,
            whichever the repository has; REVISION is a branch, tag or commit, "main" by default.

    Returns:
        Path of the cached file.

    Raises:
        ValueError: if the name is malformed.
        ImportError: if huggingface_hub is not installed.
        FileNotFoundError: if there is no such repository, revision or file.
        PermissionError: if the repository is gated, or the hub refuses the token.
        ConnectionError: if the file is not cached and the hub cannot be reached, or the download is cut off.
        OSError: if the content has another hash, or the cache cannot be written.

    Example:
        >>> download("hf://timm/convmixer_768_32.in1k")  # doctest: +SKIP
        PosixPath('/home/ada/.cache/huggingface/hub/models--timm--convmixer_768_32.in1k/.../model.safetensors')
        >>> download("hf://convmixer_768_32.in1k")
        Traceback (most recent call last):
        ValueError: 'hf://convmixer_768_32.in1k' is no name on the hub; ... 'hf://timm/convmixer_768_32.in1k'.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is no name on the hub; it would be hf://OWNER/REPO[@REVISION][/FILE], such as "
            "'hf://timm/convmixer_768_32.in1k'."
        )
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{name!r} needs huggingface_hub, which is not installed: pip install "keras-mixers[hub]" installs it.'
        ) from error
    try:
        path, expected = _fetch(match["repo"], match["revision"], (match["file"],) if match["file"] else FILES)
        found = _hash(path, expected)
    except Exception as error:  # which client reports a broken connection, and how, depends on its version
        raise _explain(match, error) from error
    if found != expected:
        raise OSError(
            f"{name!r} was damaged on its way or on the disk (its hash is {found}, but should be {expected}); "
            f"{_remove(path)}."
        )
    return path


def _fetch(repo: str, revision: str | None, files: Sequence[str]) -> tuple[Path, str | None]:
    """Returns the path of the first of the files that the repository has, and the hash that it should have."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    file, *others = files
    try:
        # hf_hub_download alone would retry for up to six minutes if the hub does not answer; this asks once.
        etag = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).etag
    except errors.RevisionNotFoundError:
        raise
    except errors.EntryNotFoundError:
        if others:
            return _fetch(repo, revision, others)
        raise
    except Exception:
        cached = [try_to_load_from_cache(repo, file, revision=revision) for file in files]
        etag, path = None, next((path for path in cached if isinstance(path, str)), None)
        if path is None:
            raise
    else:
        path = hf_hub_download(repo, file, revision=revision)
    path = Path(path)
    # The cache names a file by the hash that the hub gave, and links to it. The link's end may be in a store that all
    # repositories share, where another hash names it.
    return path, path.readlink().name if path.is_symlink() else etag


def _hash(path: Path, expected: str | None) -> str | None:
    """Returns the hash of a file, of the same kind as the expected one; None if none is expected."""
    if expected is None:
        return None
    if not re.fullmatch("[0-9a-f]{40}(?:[0-9a-f]{24})?", expected):
        from huggingface_hub.errors import FileMetadataError

        raise FileMetadataError(f"it names {expected!r}")
    # git names a small file by its sha1
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _remove(path: Path) -> str:
    """Removes a file of the cache and all that it links to, which later calls would link to again."""
    links = [path]
    while links[-1].is_symlink():
        links.append(links[-1].parent / links[-1].readlink())
    try:
        for link in links:
            link.unlink()
    except OSError:
        return f"delete {str(links[-1].resolve())!r}, which this process may not, and call again"
    return "it is removed, and the next call downloads it again"


def _explain(match: re.Match[str], error: Exception) -> Exception:
    """Returns what to raise: one sentence on what happened to the name, and the remedy."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if known := [remedy for kind, *remedy in REMEDIES if isinstance(error, getattr(errors, kind))]:
        kind, what = known[0]
    elif status in (401, 403):
        kind, what = PermissionError, "{hub} refuses it (HTTP {status}); set HF_TOKEN to a token that may read it"
    elif status is not None:
        kind, what = ConnectionError, "{hub} answers HTTP {status}; call again later"
    elif isinstance(error, OSError) and error.errno is not None:
        kind, what = OSError, "the cache {cache} fails ({reason}); free it, or set HF_HOME to a folder that works"
    else:
        kind, what = ConnectionError, UNREACHABLE
    cause = error.__cause__ or error
    what = what.format(
        hub=constants.ENDPOINT,
        page=f"{constants.ENDPOINT}/{match['repo']}",
        revision=match["revision"] or "main",
        files=match["file"] or " and no ".join(FILES),
        cache=constants.HF_HUB_CACHE,
        status=status,
        reason=f"{type(cause).__name__}: {cause}".splitlines()[0],
    )
    return kind(f"{match[0]!r} cannot be downloaded: {what}.")
