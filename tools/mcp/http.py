"""A connection to an MCP server by streamable HTTP, with a bound on the size of each answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .config import ServerConfig
from .limits import McpLimits

if TYPE_CHECKING:
    from mcp import ClientSession


@asynccontextmanager
async def http_session(config: ServerConfig, limits: McpLimits) -> AsyncIterator[ClientSession]:
    """A session that is not initialised yet. What goes wrong is raised as httpx and MCP raise it."""
    import httpx
    from langchain_mcp_adapters.sessions import StreamableHttpConnection, create_session

    class Stream(httpx.AsyncByteStream):
        """A body that breaks off where it becomes too long."""

        def __init__(self, inner: httpx.AsyncByteStream) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = limits.flood_bytes
            async for chunk in self._inner:
                left -= len(chunk)
                if left < 0:
                    raise httpx.ReadError("the answer is too long")
                yield chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if isinstance(response.stream, httpx.AsyncByteStream):
                response.stream = Stream(response.stream)
            return response

    def client(
        headers: dict[str, str] | None = None, timeout: httpx.Timeout | None = None, auth: httpx.Auth | None = None
    ) -> httpx.AsyncClient:
        # Redirects are not followed: the headers may hold a key, which is for this server only.
        return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, transport=Transport())

    headers: dict[str, Any] = dict(config.headers)
    connection = StreamableHttpConnection(
        transport="streamable_http",
        url=config.url,
        headers=headers,
        timeout=limits.call_seconds,
        sse_read_timeout=limits.call_seconds * 2,
        httpx_client_factory=client,
    )
    async with create_session(connection) as session:
        yield session
