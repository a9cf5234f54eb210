"""Which network addresses a tool may connect to: those of the public internet, judged when the connection is made."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore

from .errors import ToolFailed

Resolve = Callable[[str, int], Awaitable[list[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Reserved by IANA for special purposes; Python's own list differs from version to version.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "64:ff9b:1::/48", "fec0::/10")
)


def is_public(address: str) -> bool:
    """Whether `address` is one that anybody may reach. An IPv4 address within an IPv6 one counts as itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(inner) for inner in _with_embedded(parsed))


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _SPECIAL)
    )


def _with_embedded(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[Address] = [address]
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner += address.teredo
    if address in _NAT64:
        # The prefix itself is global; what it leads to is the last four bytes.
        inner = [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return inner


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` by the system's resolver. Raises ToolFailed when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ToolFailed(f"there is no host {host!r}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that `permits` accepts, and to the very address that was looked at.

    So a name that resolves differently the second time gains nothing.
    """

    def __init__(self, permits: Callable[[str], bool] = is_public, resolver: Resolve = resolve) -> None:
        self._permits = permits
        self._resolve = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        # One private address among public ones is a sign of rebinding: then none is used.
        if not addresses or not all(self._permits(address) for address in addresses):
            raise ToolFailed(f"{host!r} is no public host; only public ones may be fetched from")
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in addresses[:4]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
        raise failure or httpcore.ConnectError(host)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise ToolFailed("sockets of this machine are not fetched from")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
