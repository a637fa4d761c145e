"""A Hugging Face hub that is not one: a real HTTP server on localhost that speaks what downloading needs of the hub's protocol.

    with FakeHub() as hub:
        hub.push("org/text", folder)                                  # a commit on main: a directory, or {path: content}
        hub.push("org/chats", {"train.jsonl": b".."}, kind="dataset", tag="v1")
        ... with HF_ENDPOINT=hub.url ...
    assert hub.downloaded("org/text") == ["config.json", ..]

It answers as the hub does, as far as the client looks: repository info, tree listings, path infos, and files with ETag,
X-Repo-Commit and byte ranges; large files are redirected to a content server. A missing and a private repository look alike to
who is not logged in (401), a gated one shows everything but its files. Xet storage, Git and uploads are not here.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_somebody_with_access"
API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?")
CONTENT = re.compile(r"/content/([^/]+/[^/]+)/(\w+)/(.+)")
LARGE = (".safetensors", ".bin", ".pth", ".parquet", ".model")  # kept in LFS on the real hub


@dataclass
class Repository:
    """Its commits by hash, and what its branches and tags point to. ``private`` and ``gated`` open to `TOKEN` only."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


@dataclass
class Trouble:
    """What goes wrong with requests whose path matches ``path``, the next ``times`` times.

    ``status``: this error. ``cut``: the connection breaks after so many bytes of the body.
    """

    path: str
    status: int | None = None
    cut: int | None = None
    times: int = 1_000_000


@dataclass(frozen=True)
class Seen:
    """One request that came in."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Answer:
    """One answer to be sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """The server, from ``with`` to its end."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.troubles: list[Trouble] = []
        self.log: list[Seen] = []
        self.sent: list[tuple[str, str]] = []  # repository and path of every content
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]

    # -- what tests do and look at

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def push(
        self, name: str, files: Path | Mapping[str, bytes], *, kind: str = "model", tag: str | None = None, **access: bool
    ) -> str:
        """Commit ``files`` to main and return the commit's hash; ``tag`` names it; ``private=True`` or ``gated=True``."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        repository = self.repositories.setdefault((kind, name), Repository(**access))
        listing = json.dumps([len(repository.commits), {path: _blob_id(content) for path, content in sorted(files.items())}])
        commit = hashlib.sha1(listing.encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs |= {ref: commit for ref in ("main", tag) if ref}
        return commit

    def downloaded(self, name: str) -> list[str]:
        """The files of a repository whose content was sent, wholly or in part, in order."""
        return [path for of, path in self.sent if of == name]

    # -- starting, stopping, answering

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def trouble_with(self, path: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.times and fnmatch(path, trouble.path):
                trouble.times -= 1
                return trouble
        return None

    def answer(self, seen: Seen, query: Mapping[str, list[str]]) -> Answer:
        """What the hub says to one request."""
        if content := CONTENT.fullmatch(seen.path):
            return self._content(content[1], content[2], unquote(content[3]))
        if api := API.fullmatch(seen.path):
            kind, name, what, revision, below = api.groups()
            return self._api(seen, kind, name, what or "revision", unquote(revision or "main"), unquote(below or ""), query)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", seen.path):
            kind = "dataset" if file[1] else "model"
            return self._file(seen, kind, file[2], unquote(file[3]), unquote(file[4]))
        return _error(404, "", "Not here")

    def _api(
        self, seen: Seen, kind: str, name: str, what: str, revision: str, below: str, query: Mapping[str, list[str]]
    ) -> Answer:
        found = self._find(seen, kind, name, revision)
        if isinstance(found, Answer):
            return found
        commit, files = found
        if what == "tree":
            recursive = query.get("recursive", ["False"])[0].lower() == "true"
            return _json(_tree(files, below, recursive=recursive))
        if what == "paths-info":
            return _json([entry for path in query["paths"] for entry in _entries(files, path)])
        siblings = [{"rfilename": path} for path in files]
        repository = self.repositories[kind, name]
        info = {"_id": commit[:24], "id": name, "sha": commit, "private": repository.private, "siblings": siblings}
        return _json(info | {"gated": "auto" if repository.gated else False, "disabled": False, "tags": [], "downloads": 0})

    def _file(self, seen: Seen, kind: str, name: str, revision: str, path: str) -> Answer:
        found = self._find(seen, kind, name, revision)
        if isinstance(found, Answer):
            return found
        commit, files = found
        if self.repositories[kind, name].gated and seen.token != TOKEN:
            return _error(403 if seen.token else 401, "GatedRepo", f"Access to {kind} {name} is restricted.")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path not in files:
            return _error(404, "EntryNotFound", "Entry not found", headers)
        content = files[path]
        if not path.endswith(LARGE):
            if seen.method == "GET":
                self.sent.append((name, path))
            return Answer(200, content, headers | {"ETag": f'"{_blob_id(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        place = f"http://localhost:{self._server.server_port}/content/{name}/{digest}/{path}"  # another host: it gets no token
        return Answer(302, b"", headers | {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": place})

    def _content(self, name: str, digest: str, path: str) -> Answer:
        for (_, other), repository in self.repositories.items():
            for files in repository.commits.values():
                if other == name and path in files and hashlib.sha256(files[path]).hexdigest() == digest:
                    self.sent.append((name, path))
                    return Answer(200, files[path], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})
        return _error(404, "", "Not here")

    def _find(self, seen: Seen, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | Answer:
        """The commit that ``revision`` means and its files, or why whoever asks does not get them."""
        repository = self.repositories.get((kind, name))
        if repository is None or (repository.private and seen.token != TOKEN):
            text = "Repository not found" if seen.token else "Invalid username or password."
            return _error(404 if seen.token else 401, "RepoNotFound", text)
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]


class _Handler(BaseHTTPRequestHandler):
    """Carries answers over HTTP: byte ranges, HEAD, broken connections."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Keep the terminal clean."""

    def do_GET(self) -> None:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        seen = Seen(self.command, url.path, self.headers.get("Range"), token)
        hub.log.append(seen)
        trouble = hub.trouble_with(url.path) or Trouble("")
        if trouble.status:
            return self._send(_error(trouble.status, "", "Something went wrong"))
        query = parse_qs(body or url.query)
        return self._send(_ranged(hub.answer(seen, query), seen.range), trouble.cut)

    do_HEAD = do_POST = do_GET

    def _send(self, answer: Answer, cut: int | None = None) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:cut])
            self.close_connection = cut is not None


# -- pieces of the protocol


def _ranged(answer: Answer, asked: str | None) -> Answer:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    if answer.status != 200 or not found:
        return answer
    total = len(answer.body)
    first, last = int(found[1]), min(int(found[2] or total), total - 1)
    if first >= total:
        return Answer(416, b"", {"Content-Range": f"bytes */{total}"})
    return Answer(206, answer.body[first : last + 1], answer.headers | {"Content-Range": f"bytes {first}-{last}/{total}"})


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    kind = {"Content-Type": "application/json", "X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, json.dumps({"error": message}).encode(), kind | dict(headers or {}))


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entries(files: Mapping[str, bytes], path: str) -> list[dict[str, Any]]:
    """A path's description: a file's, a directory's, or none."""
    if path in files:
        content = files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return [entry | ({"lfs": lfs} if path.endswith(LARGE) else {})]
    inside = any(other.startswith(f"{path}/") for other in files)
    return [{"type": "directory", "path": path, "size": 0, "oid": _blob_id(path.encode())}] if inside else []


def _tree(files: Mapping[str, bytes], below: str, *, recursive: bool) -> list[dict[str, Any]]:
    start = f"{below}/" if below else ""
    inside = [path.removeprefix(start) for path in files if path.startswith(start)]
    names = {"/".join(parts[:depth]) for path in inside for parts in [path.split("/")] for depth in range(1, len(parts) + 1)}
    return [entry for name in sorted(names) if recursive or "/" not in name for entry in _entries(files, start + name)]
