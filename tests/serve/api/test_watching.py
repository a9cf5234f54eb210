"""A watched folder: what is dropped in is served, what is bad is quarantined, what is taken out is unloaded."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.contract.errors import AdapterCapacity, InvalidAdapter
from tunechat.tests.serve.api.adapter_files import WEIGHTS, ask, upload, write_adapter
from tunechat.tests.serve.api.conftest import Serve, Served


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """What `check` gives once that is true."""
    async with asyncio.timeout(30):
        while True:
            if found := await check():
                return found
            await asyncio.sleep(0.05)


async def answers(served: Served, model: str) -> str | None:
    response = await ask(served, model)
    return None if response.is_error else response.json()["model"]


async def quarantined(served: Served) -> list[Any]:
    found: list[Any] = (await served.client.get("/v1/adapters")).json()["quarantined"]
    return found


async def test_a_folder_is_served_replaced_and_taken_out(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    write_adapter(folder / "there", 1)
    served = await serve(adapter_store=tmp_path / "store", adapter_folder=folder)
    await until(lambda: answers(served, "there"))
    write_adapter(folder / "support", 2)
    assert await until(lambda: answers(served, "support")) == "support@1"
    write_adapter(folder / "support", 3)

    async def is_replaced() -> bool:
        return await answers(served, "support") == "support@2"

    await until(is_replaced)
    shutil.rmtree(folder / "support")

    async def is_gone() -> bool:
        return await answers(served, "support") is None

    await until(is_gone)
    assert await answers(served, "there") == "there@1"
    assert (await served.client.get("/v1/adapters/support")).json()["state"] == "stored"


async def test_bad_folders_are_quarantined_with_the_reason(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    for name in ("bad", "tiny", "no good name"):
        write_adapter(folder / name)
    (folder / "bad" / WEIGHTS).write_bytes(b"x")
    served = await serve(adapter_store=tmp_path / "store", adapter_folder=folder)

    async def all_three() -> list[Any]:
        held = await quarantined(served)
        return held if len(held) == 3 else []

    held = {one["name"]: one for one in await until(all_three)}
    assert held["bad"]["state"] == "quarantined"
    assert held["bad"]["code"] in {"invalid_adapter", "unsupported_format"}
    assert "base model" in held["tiny"]["message"]
    assert await answers(served, "bad") is None
    assert (await ask(served, "tiny")).json()["model"] == "tiny"
    write_adapter(folder / "bad", 5)
    assert await until(lambda: answers(served, "bad")) == "bad@1"
    assert {one["name"] for one in await quarantined(served)} == {"tiny", "no good name"}


async def test_what_the_engine_refuses_is_quarantined_and_the_old_version_stays(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    served = await serve(adapter_store=tmp_path / "store", adapter_folder=folder)
    await upload(served, "support", 1)
    served.engine.load_fault = InvalidAdapter("the device does not take it")
    write_adapter(folder / "support", 2)
    (held,) = await until(lambda: quarantined(served))
    assert (held["name"], held["message"]) == ("support", "the device does not take it")
    assert await answers(served, "support") == "support@1"
    assert (await served.client.get("/v1/adapters/support")).json()["current"] == 1


async def test_a_full_engine_is_tried_again(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunechat.serve.api.watching._RETRY_SECONDS", 0.01)
    served = await serve(adapter_store=tmp_path / "store", adapter_folder=tmp_path / "drop")
    served.engine.load_fault = AdapterCapacity("full")
    write_adapter(tmp_path / "drop" / "support")

    async def is_stored() -> bool:
        return bool((await served.client.get("/v1/adapters")).json()["data"])

    await until(is_stored)
    served.engine.load_fault = None
    assert await until(lambda: answers(served, "support")) == "support@1"
    assert await quarantined(served) == []
