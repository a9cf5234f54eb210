"""A package index on this machine: one wheel, served with or without ranges, metadata, hashes and keys."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PACKAGE, VERSION = "tiny-model", "1.0"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    """A wheel of `tiny-model` that holds `files` and asks for a dependency that exists nowhere."""
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", metadata())
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def metadata() -> bytes:
    return f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\nRequires-Dist: not-there-at-all>=9\n".encode()


@dataclass
class Request:
    """One request for the wheel: who asked, for which range, and how many bytes of it were sent."""

    agent: str
    range: str | None
    sent: int = 0


@dataclass
class Behaviour:
    """What the index does. `stall_after` bytes of a request it stops sending until `released` is set."""

    wheel: bytes
    gives_metadata: bool = True
    gives_ranges: bool = True
    gives_hash: bool = True
    etag: str | None = None
    login: str | None = None
    announced: bytes | None = None
    stall_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)

    @property
    def own(self) -> list[Request]:
        """The requests that were not pip's."""
        return [request for request in self.requests if not request.agent.startswith("pip/")]


class IndexServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour


class Handler(BaseHTTPRequestHandler):
    server: IndexServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        behaviour = self.server.behaviour
        told = self.headers.get("Authorization", "")
        if behaviour.login and told != "Basic " + base64.b64encode(behaviour.login.encode()).decode():
            return self.send(401, b"", {"WWW-Authenticate": "Basic"})
        if self.path == f"/simple/{PACKAGE}/":
            return self.send(200, self.page(), {"Content-Type": "text/html"})
        if self.path == f"/files/{WHEEL}.metadata":
            return self.send(200, metadata(), {})
        if self.path == f"/files/{WHEEL}":
            return self.send_wheel()
        return self.send(404, b"", {})

    def page(self) -> bytes:
        behaviour = self.server.behaviour
        digest = hashlib.sha256(behaviour.announced or behaviour.wheel).hexdigest()
        fragment = f"#sha256={digest}" if behaviour.gives_hash else ""
        core = ' data-core-metadata="true"' if behaviour.gives_metadata else ""
        return f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}{fragment}"{core}>{WHEEL}</a></body></html>'.encode()

    def send_wheel(self) -> None:
        behaviour = self.server.behaviour
        content, wanted = behaviour.wheel, self.headers.get("Range")
        headers = {"ETag": behaviour.etag} if behaviour.etag else {}
        condition = self.headers.get("If-Range")
        status = 200
        if behaviour.gives_ranges:
            headers["Accept-Ranges"] = "bytes"
            if wanted is not None and condition in {None, behaviour.etag}:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                begin = int(first) if first else len(content) - int(last)
                end = int(last) + 1 if first and last else len(content)
                headers["Content-Range"] = f"bytes {begin}-{min(end, len(content)) - 1}/{len(content)}"
                content, status = content[begin:end], 206
        request = Request(self.headers.get("User-Agent", ""), wanted)
        if self.command == "GET":
            behaviour.requests.append(request)
        self.send(status, content, headers, request)

    def send(self, status: int, content: bytes, headers: dict[str, str], request: Request | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        stall = self.server.behaviour.stall_after if request is not None else None
        try:
            if stall is not None and stall < len(content):
                self.wfile.write(content[:stall])
                self.server.behaviour.stalled.set()
                self.server.behaviour.released.wait(60)
                content = content[stall:]
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return
        if request is not None:
            request.sent = len(content)

    def log_message(self, *_: Any) -> None:
        """Keeps test output clean."""


@contextmanager
def serving_index(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves an index that is all pip sees; gives its host and port."""
    server = IndexServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"127.0.0.1:{server.server_address[1]}"
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    login = f"{behaviour.login}@" if behaviour.login else ""
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{login}{address}/simple")
    try:
        yield address
    finally:
        behaviour.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
