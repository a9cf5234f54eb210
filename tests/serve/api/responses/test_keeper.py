"""The store behind the event loop: what expires goes unasked, and every failure is a clear one."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tunechat.serve.api.responses import keeper as module
from tunechat.serve.api.responses.keeper import Keeper
from tunechat.serve.api.responses.store import ResponseStore, StoredResponse
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.contract.errors import Unavailable, Unsupported


def settings(path: Path | None, **more: float) -> ApiSettings:
    return ApiSettings(model="m", response_store=path, **more)  # type: ignore[arg-type]


def response(created: float) -> StoredResponse:
    return StoredResponse("r", "t", created, {"id": "r", "status": "completed"})


async def test_what_expires_goes_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIDY_SECONDS", 0.01)
    tidied = asyncio.Event()
    loop, tidy = asyncio.get_running_loop(), ResponseStore.tidy

    def noticed(store: ResponseStore) -> None:
        tidy(store)
        loop.call_soon_threadsafe(tidied.set)

    keeper = Keeper(settings(tmp_path / "r.db", response_retention=100.0))
    async with keeper.lifespan():
        # A save removes what is too old, so this one is made too old behind its back.
        await keeper.ask(lambda store: store.save(response(4e9)))
        await keeper.ask(lambda store: store._base.execute("UPDATE responses SET created = 1").fetchall())
        monkeypatch.setattr(ResponseStore, "tidy", noticed)
        await tidied.wait()
        count = await keeper.ask(lambda store: store._base.execute("SELECT COUNT(*) FROM responses").fetchone())
    assert count == (0,)


async def test_a_failing_disk_is_told(tmp_path: Path) -> None:
    keeper = Keeper(settings(tmp_path / "r.db"))

    def fail(store: ResponseStore) -> None:
        raise sqlite3.OperationalError("disk full")

    async with keeper.lifespan():
        with pytest.raises(Unavailable) as refused:
            await keeper.ask(fail)
        await keeper.ask(lambda store: store.save(response(4e9)))
    assert refused.value.code == "store_failed"
    assert "disk" not in refused.value.message


async def test_what_is_not_configured_is_refused_by_name() -> None:
    keeper = Keeper(settings(None))
    async with keeper.lifespan():
        assert (keeper.is_configured, keeper.wants(None), keeper.wants(False)) == (False, False, False)
        with pytest.raises(Unsupported) as refused:
            keeper.wants(True)
    assert refused.value.param == "store"


async def test_it_can_be_opened_again(tmp_path: Path) -> None:
    keeper = Keeper(settings(tmp_path / "r.db"))
    for _ in range(2):
        async with keeper.lifespan():
            assert keeper.wants(None)
        assert not keeper.wants(None)
