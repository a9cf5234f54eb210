"""Uploads over HTTP: their forms, their bounds, and what is left of those that fail."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.adapter_files import CONFIG, WEIGHTS, adapter_files, zipped
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import call, make_scope

FILES = adapter_files()


@pytest.fixture
async def served(serve: Serve, tmp_path: Path) -> Served:
    return await serve(adapter_store=tmp_path, max_upload_bytes=1 << 20, upload_timeout=1)


def left_over(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.name.startswith(".") and path.suffix != ".lock"]


def form(*parts: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", part) for part in parts]


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        (form((CONFIG, FILES[CONFIG])), 422),
        (form((CONFIG, FILES[CONFIG]), ("adapter_model.bin", b"x")), 422),
        (form((CONFIG, FILES[CONFIG]), (CONFIG, FILES[CONFIG])), 400),
        (form((f"../{CONFIG}", FILES[CONFIG])), 400),
        (form((f"x/{CONFIG}", FILES[CONFIG])), 400),
        (form(("a.zip", zipped(FILES)), ("b.zip", zipped(FILES))), 400),
        (form(("a.zip", zipped(FILES)), (CONFIG, FILES[CONFIG])), 400),
        (form(("", b"x")), 400),
        (form((CONFIG, b" " * (1 << 20))), 413),
        (form((WEIGHTS, b" " * (1 << 20))), 413),
    ],
)
async def test_forms_that_are_no_adapter(served: Served, tmp_path: Path, parts: Any, status: int) -> None:
    response = await served.client.post("/v1/adapters/support", files=parts)
    assert response.status_code == status, response.text
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ("text/plain", b"x", 415),
        ("application/zip", b"", 400),
        ("application/zip", b"PK", 400),
        ("application/zip", b"x" * (2 << 20), 413),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"x", 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--", 400),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 400),
        (f"multipart/form-data; boundary={'b' * 300}", b"x", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="' + CONFIG.encode() + b'"\r\n\r\n{}',
            400,
        ),
        ("MULTIPART/form-data; Boundary=b", b"--b\r\n" + b"x: " + b"y" * 100_000, 400),
        ("application/zip; charset=\xff", b"x", 400),
    ],
)
async def test_bodies_that_are_no_upload(served: Served, tmp_path: Path, kind: str, body: bytes, status: int) -> None:
    headers = [(b"host", b"localhost"), (b"content-type", kind.encode("latin-1"))]
    answer = await call(served.app, make_scope("POST", "/v1/adapters/support", headers), body)
    assert answer.status == status, answer.body
    assert left_over(tmp_path) == []


async def test_a_body_in_many_small_pieces(served: Served) -> None:
    content = zipped(FILES)
    pieces = [content[at : at + 7] for at in range(0, len(content), 7)]
    headers = {"content-type": "application/zip"}
    answer = await call(served.app, make_scope("POST", "/v1/adapters/support", headers), pieces)
    assert answer.json["id"] == "support@1"


async def test_a_body_that_drips_in_is_ended(served: Served, tmp_path: Path) -> None:
    async def receive() -> Any:
        await asyncio.sleep(0.3)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = make_scope("POST", "/v1/adapters/support", {"content-type": "application/zip"})
    await asyncio.wait_for(served.app(scope, receive, send), 10)
    assert sent[0]["status"] == 408
    assert left_over(tmp_path) == []


async def test_only_a_few_at_once(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    stuck, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def receive() -> Any:
        begun.release()
        await stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scopes = [make_scope("POST", f"/v1/adapters/a{n}", {"content-type": "application/zip"}) for n in range(4)]
    uploads = [asyncio.create_task(served.app(scope, receive, send)) for scope in scopes]
    for _ in uploads:
        await begun.acquire()
    response = await served.client.post(
        "/v1/adapters/support", content=zipped(FILES), headers={"content-type": "application/zip"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    stuck.set()
    await asyncio.gather(*uploads)
    assert left_over(tmp_path) == []


async def test_uploads_of_servers_that_died_are_removed(served: Served, tmp_path: Path) -> None:
    old, new = tmp_path / ".uploads" / "old", tmp_path / ".uploads" / "new"
    for folder in (old, new):
        (folder / "adapter").mkdir(parents=True)
    days_ago = time.time() - 3 * 86_400
    os.utime(old, (days_ago, days_ago))
    await served.client.post("/v1/adapters/support", content=zipped(FILES), headers={"content-type": "application/zip"})
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/adapters/x/load", "/v1/load_lora_adapter"])
async def test_only_uploads_may_be_large(serve: Serve, tmp_path: Path, path: str) -> None:
    served = await serve(adapter_store=tmp_path, max_body_bytes=1024)
    headers = {"content-type": "application/json", "content-length": "2000"}
    assert (await call(served.app, make_scope("POST", path, headers))).status == 413


async def test_a_disk_that_fails_is_an_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    response = await served.client.post(
        "/v1/adapters/support", content=zipped(FILES), headers={"content-type": "application/zip"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_failed")
