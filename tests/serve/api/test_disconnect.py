"""Work that ends when its client leaves, and leaves `receive` to the next reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from tunechat.serve.api.disconnect import until_disconnect


class Client:
    """Sends one empty message, then a disconnect when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.readers = 0

    async def receive(self) -> Any:
        self.readers += 1
        assert self.readers == 1
        try:
            await self.left.wait()
        finally:
            self.readers -= 1
        return {"type": "http.disconnect"}


async def test_the_result_of_the_work() -> None:
    client = Client()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    for _ in range(2):
        assert await until_disconnect(client.receive, work()) == 7
        assert client.readers == 0


async def test_the_error_of_the_work() -> None:
    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until_disconnect(Client().receive, work())


async def test_a_client_that_leaves_cancels_the_work() -> None:
    client = Client()
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    waiting = asyncio.create_task(until_disconnect(client.receive, work()))
    await asyncio.sleep(0)
    client.left.set()
    with pytest.raises(ClientDisconnect):
        await waiting
    assert ended


async def test_cancelling_the_wait_cancels_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(until_disconnect(Client().receive, work()))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
