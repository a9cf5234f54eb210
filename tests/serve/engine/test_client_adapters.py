"""Adapters through the client, with real engine processes that have a toy model."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import (
    AdapterCapacity,
    Conflict,
    EngineFailed,
    InvalidAdapter,
    InvalidRequest,
    ModelNotFound,
    TunechatError,
    Unavailable,
)
from tunechat.serve.contract.messages import AdapterLoaded, AdapterUse
from tunechat.serve.engine.client import EngineClient
from tunechat.tests.serve.engine.harness import greedy
from tunechat.tests.serve.engine.test_client import engine, until
from tunechat.tests.serve.engine.toy import alone


def add(client: EngineClient, *digests: str, folder: str = "ok") -> None:
    for digest in digests:
        client.add_adapter(AdapterRef(name=digest, number=1, digest=digest), Path("store", folder))


async def complete(client: EngineClient, name: str, *digests: str, tokens: int = 6) -> list[int]:
    uses = tuple(map(AdapterUse, digests))
    outputs = client.generate([1, 2, 3], greedy(tokens), sequence=name, adapters=uses)
    return [token async for output in outputs for token in output.tokens]


def right(*digests: str, tokens: int = 6) -> list[int]:
    return alone([1, 2, 3], greedy(tokens), tuple(map(AdapterUse, digests)))[0]


async def test_requests_with_adapters_get_their_own_text_and_stats_tell_of_them() -> None:
    async with engine() as client:
        add(client, "a", "b")
        info = await client.wait_ready()
        assert (info.adapter_slots, info.adapter_bytes, info.max_adapter_rank) == (4, 1000, 512)
        assert await client.load_adapter("a") == AdapterLoaded(digest="a", bytes=100)
        kinds: list[tuple[str, ...]] = [(), ("a",), ("b",), ("a", "b")] * 3
        texts = await asyncio.gather(*(complete(client, str(at), *kind) for at, kind in enumerate(kinds)))
        assert texts == [right(*kind) for kind in kinds]
        await until(lambda: {entry.digest for entry in client.stats.adapters} == {"a", "b"})
        assert (client.stats.adapter_loads, client.stats.adapter_installs) == (2, 2)
        client.remove_adapter("a")
        client.remove_adapter("a")
        with pytest.raises(ModelNotFound):
            client.generate([1], greedy(1), sequence="x", adapters=(AdapterUse("a"),))
        await until(lambda: {entry.digest for entry in client.stats.adapters} == {"b"})


async def test_what_is_known_at_once_is_refused_at_once() -> None:
    async with engine() as client:
        add(client, *"abcde")
        with pytest.raises(Unavailable):
            await client.load_adapter("a")
        await client.wait_ready()
        with pytest.raises(ModelNotFound):
            await client.load_adapter("x")
        with pytest.raises(ModelNotFound):
            client.pin_adapter("x", True)
        for digests in (["a", "a"], list("abcde")):
            with pytest.raises(InvalidRequest):
                client.generate([1], greedy(1), sequence="x", adapters=tuple(map(AdapterUse, digests)))
        for digest in "abc":
            client.pin_adapter(digest, True)
        client.pin_adapter("a", True)
        with pytest.raises(AdapterCapacity, match="at most 3 of 4"):
            client.pin_adapter("d", True)
        client.pin_adapter("a", False)
        client.pin_adapter("d", True)


async def test_a_failed_load_says_why_and_a_failed_request_too() -> None:
    async with engine() as client:
        add(client, "bad", folder="wrong")
        add(client, "evil", folder="broken")
        await client.wait_ready()
        with pytest.raises(InvalidAdapter, match="rank"):
            await client.load_adapter("bad")
        with pytest.raises(TunechatError) as caught:
            await client.load_adapter("evil")
        assert caught.value.code == "adapter_load_failed"
        with pytest.raises(InvalidAdapter, match="bad@1"):
            await complete(client, "x", "bad")
        assert await complete(client, "y") == right()
        assert client.restarts == 0


async def test_those_who_load_the_same_share_one_reading_and_removal_answers_them() -> None:
    async with engine() as client:
        add(client, "a", folder="slow-0.5")
        await client.wait_ready()
        loads = [asyncio.create_task(client.load_adapter("a")) for _ in range(3)]
        await asyncio.sleep(0.05)
        loads[0].cancel()
        answers = await asyncio.gather(*loads, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [AdapterLoaded(digest="a", bytes=100)] * 2
        await until(lambda: client.stats.adapter_loads == 1)
        client.remove_adapter("a")
        add(client, "a", folder="slow-0.5")
        first = asyncio.create_task(client.load_adapter("a"))
        await asyncio.sleep(0.05)
        client.remove_adapter("a")
        add(client, "a", folder="ok")
        second = asyncio.create_task(client.load_adapter("a"))
        with pytest.raises(Conflict):
            await first
        assert await second == AdapterLoaded(digest="a", bytes=100)


async def test_a_load_that_takes_too_long_is_given_up_and_can_be_asked_for_again() -> None:
    async with engine(load_timeout=0.1) as client:
        add(client, "a", folder="slow-0.4")
        await client.wait_ready()
        with pytest.raises(Unavailable, match="within"):
            await client.load_adapter("a")
        for _ in range(100):
            try:
                assert await client.load_adapter("a") == AdapterLoaded(digest="a", bytes=100)
                break
            except Unavailable:
                continue
        else:
            raise AssertionError("the load never came to an end")
        assert await complete(client, "x", "a") == right("a")


async def test_a_new_engine_knows_the_same_adapters_and_pins_and_who_waits_for_a_load_is_told() -> None:
    async with engine(pause=0.01) as client:
        add(client, "a", "b", "gone")
        add(client, "slow", folder="slow-30")
        info = await client.wait_ready()
        client.pin_adapter("b", True)
        client.remove_adapter("gone")
        stream = asyncio.create_task(complete(client, "runs", "a", tokens=900))
        await until(lambda: client.stats.running == 1)
        loads = [asyncio.create_task(client.load_adapter("slow")) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        results = await asyncio.gather(stream, *loads, return_exceptions=True)
        assert [type(result) for result in results] == [EngineFailed] * 3
        assert client.stats.adapters == []
        # Known while no engine is there, known to the next one.
        add(client, "late")
        with pytest.raises(Unavailable):
            await client.load_adapter("late")
        assert await client.wait_ready() == info
        kinds = [("a",), ("b",), ("late",), ()]
        texts = await asyncio.gather(*(complete(client, str(kind), *kind) for kind in kinds))
        assert texts == [right(*kind) for kind in kinds]
        with pytest.raises(ModelNotFound):
            client.generate([1], greedy(1), sequence="x", adapters=(AdapterUse("gone"),))
        await until(lambda: [entry.pinned for entry in client.stats.adapters if entry.digest == "b"] == [True])
        assert [entry.pinned for entry in client.stats.adapters if entry.digest == "a"] == [False]


async def test_a_load_ends_with_the_client() -> None:
    async with engine() as client:
        add(client, "a", folder="slow-30")
        await client.wait_ready()
        load = asyncio.create_task(client.load_adapter("a"))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await load
