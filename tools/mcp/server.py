"""One MCP server, kept alive: started when needed, restarted with pauses that grow, never waited for without end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import ToolFailed
from ..processes import to_the_end
from .config import ServerConfig
from .http import http_session
from .limits import McpLimits
from .pins import fingerprint
from .stdio import stdio_streams

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.types import CallToolResult, Tool

_log = logging.getLogger(__name__)


class McpServer:
    """A server by its configuration. `start` and `call` raise ToolFailed; `close` ends it with all its processes."""

    def __init__(
        self,
        name: str,
        config: ServerConfig,
        limits: McpLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.tools: dict[str, Tool] = {}
        self._config = config
        self._limits = limits or McpLimits()
        self._clock = clock
        self._session: ClientSession | None = None
        self._life: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._starting = asyncio.Lock()
        self._doubtful = False
        self._failures = 0
        self._not_before = 0.0

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each tool, as the server tells them now."""
        return {name: fingerprint(name, tool.description or "", tool.inputSchema) for name, tool in self.tools.items()}

    @property
    def running(self) -> bool:
        return self._life is not None and not self._life.done() and self._session is not None

    async def start(self) -> None:
        """Returns when the server runs and its tools are known."""
        async with self._starting:
            if self.running:
                return
            pause = self._not_before - self._clock()
            if pause > 0:
                raise ToolFailed(f"the MCP server {self.name!r} failed; it is tried again in {pause:.0f} seconds")
            await self._ended()
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # Whoever waits may have given up by the time it fails; then nobody else asks why.
            ready.add_done_callback(_looked_at)
            self._stop = asyncio.Event()
            self._life = asyncio.create_task(self._live(ready, self._stop))
            try:
                async with asyncio.timeout(self._limits.start_seconds):
                    await asyncio.shield(ready)
            except TimeoutError as error:
                await self._fail()
                raise ToolFailed(f"the MCP server {self.name!r} did not start in time") from error
            except ToolFailed:
                await self._fail()
                raise
            except asyncio.CancelledError:
                await self._ended()
                raise

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """What the server answers. A server that does not answer in time is ended, and started anew for the next."""
        from mcp.shared.exceptions import McpError
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest

        if self._doubtful:
            await self._reassure()
        await self.start()
        session = self._session
        if session is None or tool not in self.tools:
            raise ToolFailed(f"the MCP server {self.name!r} has no tool {tool!r} any more")
        request = ClientRequest(CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments)))
        stop = self._stop
        # Not `call_tool`, which would run the server's own schema, regular expressions included, on the answer.
        asking = asyncio.create_task(session.send_request(request, CallToolResult))
        ending = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({asking, ending}, timeout=self._limits.call_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                how = "ended during the call" if stop.is_set() else "did not answer in time; it was ended"
                await self._fail(session)
                raise ToolFailed(f"the MCP server {self.name!r} {how}")
            result = asking.result()
        except McpError as error:
            if stop.is_set():
                await self._fail(session)
                raise ToolFailed(f"the MCP server {self.name!r} ended during the call") from error
            raise ToolFailed(f"the MCP server {self.name!r} answered: {error.error.message[:500]}") from error
        except asyncio.CancelledError:
            self._doubtful = True
            raise
        except ToolFailed:
            raise
        except Exception as error:  # streams, pydantic and httpx each have their own way to say that it is broken
            await self._fail(session)
            _log.warning("the MCP server %s failed", self.name, exc_info=True)
            raise ToolFailed(f"the MCP server {self.name!r} failed: {type(error).__name__}") from error
        finally:
            for task in (asking, ending):
                task.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)
        self._failures = 0
        return result

    async def close(self) -> None:
        """Ends the server. May be called more than once."""
        await self._ended()

    async def _reassure(self) -> None:
        """Ends a server that does not answer after a call to it was given up."""
        self._doubtful = False
        session = self._session
        if session is None or not self.running:
            return
        try:
            async with asyncio.timeout(self._limits.ping_seconds):
                await session.send_ping()
        except Exception as error:  # whatever kept it from answering, it is started anew
            _log.warning("the MCP server %s hangs (%s); it is ended", self.name, type(error).__name__)
            await self._ended()

    async def _fail(self, session: ClientSession | None = None) -> None:
        """Ends the server and lets it rest. With `session`, not if another one has taken its place meanwhile."""
        if session is not None and self._session not in (session, None):
            return
        self._failures += 1
        pause = min(self._limits.longest_pause, self._limits.shortest_pause * 2 ** min(self._failures - 1, 10))
        self._not_before = self._clock() + pause
        await self._ended()

    async def _ended(self) -> None:
        """Returns when the server that runs now, if one does, has ended: even if the caller is cancelled meanwhile."""
        life = self._life
        self._stop.set()
        if life is None:
            return

        async def end() -> None:
            # A session that hangs in its own clean-up must not keep us.
            _, late = await asyncio.wait({life}, timeout=self._limits.ping_seconds + 2)
            for task in late:
                task.cancel()
            await asyncio.wait({life})

        await to_the_end(end)
        if self._life is life:
            self._life = self._session = None

    async def _live(self, ready: asyncio.Future[None], stop: asyncio.Event) -> None:
        """Holds the session from its start to its end, in one task, as its streams want it."""
        try:
            async with self._connected(stop) as session:
                await session.initialize()
                self.tools = await self._list(session)
                self._session = session
                ready.set_result(None)
                await stop.wait()
        except Exception as error:  # the reason is told to whoever waits for the start, or written down
            told = _cause(self.name, error)
            if ready.done():
                _log.warning("the MCP server %s ended: %s", self.name, told.message)
            else:
                ready.set_exception(told)
        finally:
            self._session = None
            if not ready.done():
                ready.set_exception(ToolFailed(f"the MCP server {self.name!r} ended while it started"))

    @asynccontextmanager
    async def _connected(self, stop: asyncio.Event) -> AsyncIterator[ClientSession]:
        from mcp import ClientSession

        if self._config.url:
            async with http_session(self._config, self._limits) as session:
                yield session
            return
        async with (
            stdio_streams(self.name, self._config, self._limits, stop) as (incoming, outgoing),
            ClientSession(incoming, outgoing) as session,
        ):
            yield session

    async def _list(self, session: ClientSession) -> dict[str, Tool]:
        from mcp.types import PaginatedRequestParams

        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(self._limits.pages):
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                if len(found) >= self._limits.tools:
                    raise ToolFailed(f"the MCP server {self.name!r} has more than {self._limits.tools} tools")
                size = len(json.dumps(tool.inputSchema)) + len(tool.description or "")
                if size > self._limits.schema_bytes:
                    _log.warning("the tool %s of %s is left out: it takes %d bytes", tool.name[:64], self.name, size)
                    continue
                found[tool.name] = tool
            cursor = page.nextCursor
            if not cursor:
                return found
        raise ToolFailed(f"the MCP server {self.name!r} lists its tools without end")


def _looked_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _cause(name: str, error: BaseException) -> ToolFailed:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, ToolFailed):
        return error
    with suppress(ImportError):
        from mcp.shared.exceptions import McpError

        if isinstance(error, McpError):
            return ToolFailed(f"the MCP server {name!r} does not start: {error.error.message[:200]}")
    return ToolFailed(f"the MCP server {name!r} does not start: {type(error).__name__}")
