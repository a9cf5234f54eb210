from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.addresses import GuardedBackend, is_public, resolve
from tunechat.tools.errors import ToolFailed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:db8::1",
        "2130706433",
        "0x7f000001",
        "localhost",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_way_to_wrap_a_private_address_makes_it_public(address: object) -> None:
    for prefix in ("", "::ffff:", "64:ff9b::"):
        assert not is_public(f"{prefix}{address}")


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[int, list[str]]]:
    """A listener on the loopback, and who came."""
    visitors: list[str] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append("came")
        writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], visitors


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], []])
async def test_a_name_that_leads_home_is_not_connected_to(answers: list[str]) -> None:
    async def fake(host: str, port: int) -> list[str]:
        return answers

    async with canary() as (port, visitors):
        with pytest.raises(ToolFailed, match="no public host"):
            await GuardedBackend(resolver=fake).connect_tcp("rebound.example", port, timeout=1)
        assert visitors == []


async def test_connects_to_the_very_address_that_was_looked_at() -> None:
    """A second answer of the resolver would be another one; it is never asked for."""
    answers = iter([["127.0.0.1"], ["10.9.9.9"]])

    async def fake(host: str, port: int) -> list[str]:
        return next(answers)

    async with canary() as (port, visitors):
        backend = GuardedBackend(permits=lambda address: address == "127.0.0.1", resolver=fake)
        stream = await backend.connect_tcp("name.example", port, timeout=5)
        assert await stream.read(10) == b""
        await stream.aclose()
        assert visitors == ["came"]


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost"])
async def test_other_ways_to_write_home_resolve_to_it_and_are_refused(host: str) -> None:
    try:
        found = await resolve(host, 80)
    except ToolFailed:
        return
    assert found and not any(is_public(address) for address in found)


async def test_sockets_of_the_machine_are_refused() -> None:
    with pytest.raises(ToolFailed):
        await GuardedBackend().connect_unix_socket("/run/x.sock")
