"""A queue that is bounded and that ends well."""

from __future__ import annotations

import asyncio

import pytest

from tunechat.serve.api.channel import Channel


async def test_order_and_end() -> None:
    channel: Channel[int] = Channel(10)
    for item in range(3):
        await channel.put(item)
    channel.close()
    assert [await channel.get() for _ in range(4)] == [0, 1, 2, None]
    assert await channel.get() is None


async def test_a_full_channel_stalls_its_makers() -> None:
    channel: Channel[int] = Channel(2)
    made = 0

    async def make() -> None:
        nonlocal made
        for item in range(10):
            await channel.put(item)
            made += 1
        channel.close()

    makers = [asyncio.create_task(make())]
    for _ in range(20):
        await asyncio.sleep(0)
    assert (made, len(channel)) == (2, 2)
    items = []
    while (item := await channel.get()) is not None:
        items.append(item)
        assert len(channel) <= 2
    assert items == list(range(10))
    await asyncio.gather(*makers)


async def test_an_error_at_the_end_comes_after_what_is_left() -> None:
    channel: Channel[int] = Channel(10)
    await channel.put(1)
    channel.close(KeyError("first"))
    channel.close(KeyError("second"))
    await channel.put(2)
    assert await channel.get() == 1
    for _ in range(2):
        with pytest.raises(KeyError, match="first"):
            await channel.get()


async def test_a_failure_comes_before_what_is_left() -> None:
    channel: Channel[int] = Channel(1)
    await channel.put(1)
    blocked = asyncio.create_task(channel.put(2))
    await asyncio.sleep(0)
    channel.fail(KeyError("now"))
    await asyncio.wait_for(blocked, 1)
    with pytest.raises(KeyError, match="now"):
        await channel.get()


async def test_wait_takes_nothing() -> None:
    channel: Channel[int] = Channel(1)
    waiting = asyncio.create_task(channel.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await channel.put(1)
    await waiting
    assert await channel.get() == 1
