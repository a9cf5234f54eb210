"""One engine process and the connection to it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from ..contract.messages import FromEngine, ToEngine
from ..contract.wire import FrameReader, WireError, encode, from_engine
from .options import IGNORED_SIGNALS, EngineOptions

logger = logging.getLogger(__name__)

_REAP_SECONDS = 10.0


class Child(asyncio.Protocol):
    """A running engine. Its messages go to `on_message`; `on_lost` is called once, when the connection ends.

    The connection ends when the engine does, and an engine whose connection ends exits: each side sees the other's
    death as the end of the file, with no polling.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], on_message: Callable[[FromEngine], None], on_lost: Callable[[], None]
    ) -> None:
        self._process = process
        self._on_message = on_message
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.messages = 0

    @staticmethod
    async def spawn(
        command: Sequence[str],
        options: EngineOptions,
        on_message: Callable[[FromEngine], None],
        on_lost: Callable[[], None],
    ) -> Child:
        """Start `command` with one end of a new socket pair. Raises OSError when there is no such command."""
        ours, theirs = socket.socketpair()
        try:
            child = Child(_popen(command, theirs, options), on_message, on_lost)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: child, sock=ours)
        except BaseException:
            ours.close()
            await child.end()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Queue a message for the engine; never blocks. Nothing happens when the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def kill(self) -> None:
        """Kill the process if it still runs; the connection ends soon after."""
        if self._process.poll() is None:
            self._process.kill()

    async def end(self) -> int:
        """Kill the process if it still runs; gives its exit status, negative for a signal."""
        self.kill()
        status = await asyncio.to_thread(self._process.wait, _REAP_SECONDS)
        if self._transport is not None:
            self._transport.close()
            await self.lost.wait()
        return status

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods and not its base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self.messages += 1
                self._on_message(from_engine.decode(body))
        except (WireError, msgspec.DecodeError):
            logger.exception("the engine sent what is no message")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._on_lost()


def _popen(command: Sequence[str], connection: socket.socket, options: EngineOptions) -> subprocess.Popen[bytes]:
    descriptor = connection.fileno()
    # The mask is inherited: a Ctrl-C must not reach the engine before it has said that it ignores it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603 - the command is ours, never a user's
            [*command, "--fd", str(descriptor), options.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
