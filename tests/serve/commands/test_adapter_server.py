"""`tunechat adapters` with a server: every command asks the right route and shows what it answers."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.api.adapter_records import Look, adapter_record, version_record
from tunechat.serve.api.archive import packed
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import TunechatError

from .adapter_home import Workshop, prepared
from .conftest import Done, FakeServer, refusal

Tunechat = Callable[..., Done]
LOOK = Look({}, {}, {})


class RemoteStore:
    """Answers /v1/adapters from a store of its own, as the server does."""

    def __init__(self, root: Path, base: BaseManifest) -> None:
        self.store = AdapterStore(root)
        self.base = base
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/adapters").strip("/")
        self.asked.append(f"{request.method} {path}{f'?{request.url.query.decode()}' if request.url.query else ''}")
        name, _, verb = path.partition("/")
        try:
            return self._answer(request, name, verb)
        except TunechatError as error:
            return refusal(error.http_status, error.code, error.message)

    def _answer(self, request: httpx.Request, name: str, verb: str) -> httpx.Response:
        store = self.store
        match request.method, name, verb:
            case "GET", "", "":
                data = [adapter_record(stored, LOOK) for stored in store.all()]
                return httpx.Response(200, json={"object": "list", "data": data, "quarantined": []})
            case "GET", _, "download":
                version = store.show(name)
                files = [(file, (store.folder(version) / file).open("rb")) for file in version.files]
                return httpx.Response(200, content=b"".join(packed(files)))
            case "GET", _, "" if "@" not in name:
                return httpx.Response(200, json=adapter_record(store.of(name), LOOK))
            case "GET", _, "":
                return self._version(name)
            case "DELETE", _, "":
                removed = [version.ref.id for version in store.remove(name)]
                return httpx.Response(200, json={"object": "adapter.deleted", "id": name, "removed": removed})
            case "POST", _, "unload":
                return httpx.Response(200, json={"object": "adapter.unloaded", "id": name, "draining": ["support@1"]})
            case "POST", _, "":
                folder = self.store.root.parent / "uploaded"
                folder.mkdir(exist_ok=True)
                for file, content in parts_of(request).items():
                    (folder / file).write_bytes(content)
                activate = request.url.params.get("activate") != "false"
                return self._version(store.publish(name, folder, Intake(self.base), activate=activate).ref.id)
            case "POST", _, "rollback":
                return self._version(store.rollback(name).ref.id)
            case "POST", _, "activate":
                return self._version(store.activate(name).ref.id)
            case "POST", _, "pin" | "unpin":
                return self._version(store.pin(name, verb == "pin").ref.id)
            case "POST", _, "verify":
                return self._version(store.verify(name).ref.id, verified=True)
        return refusal(404, "not_found", "no such route")

    def _version(self, text: str, **more: object) -> httpx.Response:
        version = self.store.show(text)
        record = version_record(version, self.store.of(version.name), LOOK)
        return httpx.Response(200, json={**record, "state": "loaded", "residency": "device", **more})


def parts_of(request: httpx.Request) -> dict[str, bytes]:
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    return {str(part.get_filename()): part.get_payload(decode=True) for part in message.iter_parts()}  # type: ignore[attr-defined]


@pytest.fixture
def base(workshop: Workshop) -> Path:
    return workshop.base()


@pytest.fixture
def remote(served: FakeServer, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    """A server elsewhere: nothing of it is in the home folder."""
    remote = RemoteStore(tmp_path / "remote", prepared(base, tmp_path / "remote-home"))
    monkeypatch.setattr(
        FakeServer,
        "__call__",
        lambda self, request, rest=FakeServer.__call__: (
            remote(request) if request.url.path.startswith("/v1/adapters") else rest(self, request)
        ),
    )
    return remote


@pytest.fixture
def ask(tunechat: Tunechat) -> Callable[..., Any]:
    def call(*arguments: str) -> Any:
        done = tunechat("adapters", *arguments, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return call


def test_every_command_goes_through_the_server(
    remote: RemoteStore, workshop: Workshop, base: Path, ask: Callable[..., Any], home: Path
) -> None:
    one, two = (workshop.adapter(base, seed=seed) for seed in (1, 2))
    first = ask("load", str(one), "--name", "support")
    assert (first["id"], first["state"]) == ("support@1", "loaded")
    assert not ask("load", str(two), "--name", "support", "--no-activate")["is_current"]
    assert ask("activate", "support@2")["number"] == 2
    assert ask("rollback", "support")["number"] == 1
    assert ask("pin", "support@2")["is_pinned"] and not ask("unpin", "support@2")["is_pinned"]
    assert ask("verify", "support")["verified"]
    assert ask("show", "support")["current"] == 1
    assert ask("show", "support@2")["number"] == 2
    assert ask("unload", "support")["draining"] == ["support@1"]
    assert ask("list")["data"][0]["name"] == "support"
    assert ask("remove", "support@2")["removed"] == ["support@2"]
    assert remote.asked == [
        "POST support",
        "POST support?activate=false",
        "POST support@2/activate",
        "POST support/rollback",
        "POST support@2/pin",
        "POST support@2/unpin",
        "POST support/verify",
        "GET support",
        "GET support@2",
        "POST support/unload",
        "GET ",
        "DELETE support@2",
    ]
    assert not (home / "adapters").exists()


def test_a_zip_can_be_loaded_and_an_export_comes_back(
    remote: RemoteStore, workshop: Workshop, base: Path, ask: Callable[..., Any], tmp_path: Path
) -> None:
    first = ask("load", str(workshop.adapter(base)), "--name", "support")
    told = ask("export", "support", str(tmp_path / "out.zip"))
    assert told["digest"] == first["digest"]
    assert ask("load", str(tmp_path / "out.zip"), "--name", "copy")["digest"] == first["digest"]


def test_merge_takes_the_adapter_from_the_server(
    remote: RemoteStore, workshop: Workshop, base: Path, ask: Callable[..., Any], tmp_path: Path, home: Path
) -> None:
    prepared(base, home)
    ask("load", str(workshop.adapter(base)), "--name", "support")
    told = ask("merge", "support", str(tmp_path / "merged"), "--model", str(base))
    assert (told["id"], told["weights"]) == ("support@1", "unquantised")


def test_damaged_download_is_not_exported(
    remote: RemoteStore, workshop: Workshop, base: Path, ask: Callable[..., Any], tunechat: Tunechat, tmp_path: Path
) -> None:
    ask("load", str(workshop.adapter(base)), "--name", "support")
    weights = tmp_path / "remote" / "support" / "1" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-1] + b"!")
    done = tunechat("adapters", "export", "support", str(tmp_path / "out"))
    assert done.code == 1 and "did not arrive as it is stored" in done.err
    assert not (tmp_path / "out").exists()


def test_refusals_of_the_server_are_one_line(
    remote: RemoteStore, workshop: Workshop, base: Path, tunechat: Tunechat
) -> None:
    done = tunechat("adapters", "show", "nobody")
    assert done == Done(1, "", "error: there is no adapter nobody\n")
    other = workshop.adapter(workshop.base("phi"), targets="dense")
    assert "the base has no linear module" in tunechat("adapters", "load", str(other), "--name", "x").err


@pytest.mark.parametrize("name", ["../models", "a/b", "a?b", "a#b", "a@0", ""])
def test_what_is_no_name_asks_nothing(remote: RemoteStore, tunechat: Tunechat, name: str) -> None:
    for command in ("show", "unload", "rollback", "activate", "pin", "verify", "remove"):
        assert tunechat("adapters", command, name).code == 1
    assert remote.asked == []


def test_what_is_no_adapter_is_not_sent(remote: RemoteStore, tunechat: Tunechat, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = tunechat("adapters", "load", str(tmp_path / "empty"), "--name", "x")
    assert done.code == 1 and "no adapter_config.json" in done.err
    assert remote.asked == []


def test_named_server_that_is_absent_is_an_error(tunechat: Tunechat, home: Path) -> None:
    home.mkdir()
    done = tunechat("adapters", "list", "--url", "http://127.0.0.1:1")
    assert done.code == 1 and done.err.startswith("error: no server answers at http://127.0.0.1:1")


def test_admin_key_is_sent(
    remote: RemoteStore, served: FakeServer, tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(
        RemoteStore,
        "__call__",
        lambda self, request: (
            seen.append(request.headers.get("authorization"))
            or httpx.Response(200, json={"object": "list", "data": [], "quarantined": []})
        ),
    )
    monkeypatch.setenv("TUNECHAT_API_KEYS", "ordinary-key")
    tunechat("adapters", "list")
    monkeypatch.setenv("TUNECHAT_ADMIN_KEYS", "admin-key-1")
    tunechat("adapters", "list")
    tunechat("adapters", "list", "--api-key", "typed-key-1")
    assert seen == ["Bearer ordinary-key", "Bearer admin-key-1", "Bearer typed-key-1"]
