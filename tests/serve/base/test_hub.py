"""Models from a hub: a small one on this machine answers the library's requests and counts them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.hub import fetch_repository
from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import HubSource, parse_source
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet

COMMIT = "a" * 40
REPOSITORY = "tiny/llama"


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as the repository `tiny/llama`; `sent` names what was downloaded."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer(send=True)

    def answer(self, send: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        files = [file for file in self.server.folder.rglob("*") if file.is_file()]
        names = {file.relative_to(self.server.folder).as_posix(): file for file in files}
        resolve = f"/{REPOSITORY}/resolve/"
        if path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name} for name, file in names.items()
            ]
            return self.send(200, json.dumps(entries).encode(), send, {"Content-Type": "application/json"})
        revision, _, name = path.removeprefix(resolve).partition("/")
        if not path.startswith(f"/{REPOSITORY}/") and f"/models/{REPOSITORY}" not in path:
            return self.send(404, b"", send, {"X-Error-Code": "RepoNotFound"})
        if revision not in {"main", "v1", COMMIT}:
            return self.send(404, b"", send, {"X-Error-Code": "RevisionNotFound"})
        if name not in names:
            return self.send(404, b"", send, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = names[name].read_bytes()
        if send:
            self.server.sent.append(name)
        tag = hashlib.sha256(content).hexdigest()
        return self.send(200, content, send, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def send(self, status: int, content: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keeps test output clean."""


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What `HF_ENDPOINT=url` does before the library is imported."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    folder = make_tiny(tmp_path / "repository", "llama")
    for name in ("modeling_evil.py", "pytorch_model.bin", "original/model.safetensors", "consolidated.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never fetched")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_hub(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def source(spec: str = REPOSITORY) -> HubSource:
    parsed = parse_source(spec)
    assert isinstance(parsed, HubSource)
    return parsed


FETCH = """
import sys
from pathlib import Path
from tunechat.serve.base.prepare import prepare
print(prepare("tiny/llama@v1", quant="int4", home=Path(sys.argv[1]), report=lambda stage, fraction: None))
"""


def test_hf_endpoint_is_honoured(hub: Hub, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", FETCH, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    manifest = BaseEntry.open(Path(done.stdout.strip())).manifest
    assert (manifest.name, manifest.source, manifest.layout) == ("llama", "tiny/llama@v1", "compact")


def test_weights_and_tokenizer_are_fetched_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    stages: list[tuple[str, float | None]] = []
    folder = fetch_repository(source(), lambda *stage: stages.append(stage), lambda config: None)
    assert folder.name == COMMIT
    expected = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(hub.sent) == expected
    assert stages[-1] == ("download", 1.0)
    fetch_repository(source(), quiet, lambda config: None)
    assert sorted(hub.sent) == expected


def test_a_refused_model_costs_its_config_alone(hub: Hub, tmp_path: Path) -> None:
    config = json.loads((hub.folder / "config.json").read_text())
    (hub.folder / "config.json").write_text(json.dumps(config | {"num_local_experts": 8}))
    with pytest.raises(ModelError, match="mixture-of-experts"):
        prepare(REPOSITORY, quant="int4", home=tmp_path, report=quiet)
    assert hub.sent == ["config.json"]


def test_a_second_start_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    first = prepare(REPOSITORY, quant="int4", home=tmp_path, report=quiet)
    hub.sent.clear()
    hub.shutdown()
    hub.server_close()
    assert prepare(REPOSITORY, quant="int4", home=tmp_path, report=quiet) == first
    # Another codec is made from the files in the cache.
    assert prepare(REPOSITORY, quant="none", home=tmp_path, report=quiet) != first
    assert hub.sent == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tiny/other", "there is no model tiny/other"),
        ("tiny/llama@v9", "has no revision 'v9'"),
    ],
)
def test_what_is_not_there(hub: Hub, tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare(spec, quant="int4", home=tmp_path, report=quiet)


def test_a_repository_of_pickles(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no safetensors"):
        prepare(REPOSITORY, quant="int4", home=tmp_path, report=quiet)
    assert "pytorch_model.bin" not in hub.sent


def test_no_hub_at_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits longer before each new try
    with pytest.raises(ModelError, match="cannot be reached"):
        prepare(REPOSITORY, quant="int4", home=tmp_path, report=quiet)
