"""A Hugging Face hub on this machine, for tests: it speaks the part of the protocol that a download uses."""

import hashlib
import http.server
import re
import threading

LARGE = (".safetensors", ".bin")  # The hub keeps these out of git: their hash is a sha256, their host another.


class StandInHub:
    """Repositories of models, served while the `with` block lasts, on a port of its own.

    Args:
        repositories: content of each file of each repository. Each has one revision: "main", whose commit is `COMMIT`.
        gated: names of those that refuse requests without a token.

    Attributes:
        url: what HF_ENDPOINT has to be.
        requests: each request for a file so far, such as "HEAD /timm/mixer/resolve/main/model.safetensors"; followed
            by the range of bytes where it asks for one.
        fault: what goes wrong, None for nothing. "HTTP 500", or another status, for all requests, or any of these words
            for contents: "cut" never sends the second half, "wrong" sends the right number of wrong bytes, "refused"
            sends HTTP 503, and with "once" all is well after the next content.

    Example:
        with StandInHub({"timm/mixer": {"model.safetensors": b"..."}}) as hub:
            hub.fault = "cut once"
    """

    COMMIT = "c0ffee" * 6 + "c0de"

    def __init__(self, repositories, gated=()):
        self.repositories, self.gated = repositories, gated
        self.requests, self.fault = [], None
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # For a client this is another host, as the one that serves large files is.
        self.large_files_url = f"http://localhost:{self._server.server_port}/large/"

    def use(self, monkeypatch, cache):
        """Makes huggingface_hub use this hub and a folder as cache, as its variables do when it is imported."""
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stops to listen: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        hub = self.server.hub
        if not self.path.startswith("/api/"):  # huggingface_hub asks for a list of programs, to name its caller.
            hub.requests.append(" ".join(filter(None, (self.command, self.path, self.headers["Range"]))))
        if hub.fault and hub.fault.startswith("HTTP"):
            return self._answer(int(hub.fault.split()[1]))
        if self.path.startswith("/large/"):
            contents = (content for files in hub.repositories.values() for content in files.values())
            return self._send(next(content for content in contents if self.path.endswith(_sha256(content))))
        match = re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self._answer(404)
        repository, revision, file = match.groups()
        if repository in hub.gated and "Authorization" not in self.headers:
            return self._answer(401, {"X-Error-Code": "GatedRepo"})
        if repository not in hub.repositories:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", hub.COMMIT):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        commit = {"X-Repo-Commit": hub.COMMIT}
        if file not in hub.repositories[repository]:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", **commit})
        content = hub.repositories[repository][file]
        if not file.endswith(LARGE):
            return self._send(content, {"ETag": f'"{_git_sha1(content)}"', **commit})
        sha256 = _sha256(content)
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": len(content)}
        return self._answer(302, {"Location": hub.large_files_url + sha256, **linked, **commit})

    do_GET = do_HEAD  # noqa: N815

    def _send(self, content, headers=None):
        fault = (self.command == "GET" and self.server.hub.fault) or ""
        if "once" in fault:
            self.server.hub.fault = None
        if "refused" in fault:
            self._answer(503)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self._answer(206 if start else 200, {"Content-Length": len(content) - start, **span, **(headers or {})})
        if self.command == "GET":
            sent = content[: len(content) // 2] if "cut" in fault else content
            if "wrong" in fault:
                sent = bytes(byte ^ 255 for byte in sent)
            self.wfile.write(sent[start:])

    def _answer(self, status, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
