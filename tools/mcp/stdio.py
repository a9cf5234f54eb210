"""A connection to an MCP server that is started as a child: bounded in what it may send, ended with all its children.

The messages are JSON-RPC, one a line (Model Context Protocol, transports, stdio).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import ToolFailed
from ..processes import close_pipes, start, to_the_end
from .config import ServerConfig
from .limits import McpLimits

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.shared.message import SessionMessage

    Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]

_GRACE = 1.0  # seconds between the end of its input and the end of the server
_INHERITED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
_log = logging.getLogger(__name__)


@asynccontextmanager
async def stdio_streams(
    name: str, config: ServerConfig, limits: McpLimits, ended: asyncio.Event
) -> AsyncIterator[Streams]:
    """The streams that an MCP client session reads and writes, while the server runs. `ended` is set when it stops.

    The server gets a few harmless variables of the environment and those of its configuration, no others. Raises
    ToolFailed when it cannot be started.
    """
    import anyio

    try:
        process = await start(
            _end,
            config.command,
            *config.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**{key: os.environ[key] for key in _INHERITED if key in os.environ}, **config.env},
            cwd=config.cwd,
            limit=limits.line_bytes,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ToolFailed(
            f"the MCP server {name!r} cannot be started: {getattr(error, 'strerror', None) or error}"
        ) from error
    from mcp.shared.message import SessionMessage

    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    allowance = _Allowance(limits)
    tasks = [
        asyncio.create_task(_receive(name, process, to_session, allowance, ended)),
        asyncio.create_task(_send(process, from_session, allowance)),
    ]
    try:
        yield incoming, outgoing
    finally:

        async def close() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in (to_session, incoming, outgoing, from_session):
                stream.close()
            await _end(process)

        await to_the_end(close)


class _Allowance:
    """What the server may still send before we ask it something again."""

    def __init__(self, limits: McpLimits) -> None:
        self._limits = limits
        self.malformed = 0
        self.renew()

    def renew(self) -> None:
        self._bytes = self._limits.flood_bytes
        self._messages = self._limits.flood_messages

    def take(self, size: int) -> bool:
        self._bytes -= size
        self._messages -= 1
        return self._bytes >= 0 and self._messages >= 0

    def take_malformed(self) -> bool:
        self.malformed += 1
        return self.malformed <= self._limits.malformed_lines


async def _receive(
    name: str,
    process: asyncio.subprocess.Process,
    stream: MemoryObjectSendStream[SessionMessage | Exception],
    allowance: _Allowance,
    ended: asyncio.Event,
) -> None:
    from mcp.shared.message import SessionMessage
    from mcp.types import JSONRPCMessage
    from pydantic import ValidationError

    try:
        async with stream:
            while process.stdout is not None and (line := await process.stdout.readline()):
                if not allowance.take(len(line)):
                    _log.warning("the MCP server %s sends more than it may; it is ended", name)
                    return
                try:
                    message = JSONRPCMessage.model_validate_json(line)
                except ValidationError:
                    # Some servers greet on stdout. One that does not stop is no server.
                    if not allowance.take_malformed():
                        _log.warning("the MCP server %s does not speak JSON-RPC; it is ended", name)
                        return
                    continue
                await stream.send(SessionMessage(message))
    except ValueError:
        _log.warning("the MCP server %s sends lines that are too long; it is ended", name)
    except OSError as error:
        _log.warning("the MCP server %s cannot be read: %s", name, error)
    finally:
        ended.set()


async def _send(
    process: asyncio.subprocess.Process, stream: MemoryObjectReceiveStream[SessionMessage], allowance: _Allowance
) -> None:
    async with stream:
        async for outgoing in stream:
            if process.stdin is None:
                return
            allowance.renew()
            process.stdin.write(outgoing.message.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
            with suppress(OSError):  # it is gone; the reader tells
                await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the server and its whole process group, children that it left behind included."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    close_pipes(process)
    await process.wait()
