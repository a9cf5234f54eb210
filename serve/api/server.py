"""Runs the application on one listening socket until a signal, and leaves without dropping anyone it can serve."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
from types import FrameType
from typing import TextIO

import uvicorn
from fastapi import FastAPI

from ..contract.errors import ConfigError, ErrorRecord, TunechatError
from .gateway import Gateway
from .log import configure_logging
from .protocol import bounded_protocol
from .settings import ApiSettings

# What remains for last events to reach their clients, and for uvicorn to close connections.
_LAST_WORDS_SECONDS = 5
_FAILURE_POLL_SECONDS = 0.5
_BACKLOG = 512
# The kernel would take megabytes of a stream for a client that reads nothing, so that the send timeout came minutes
# late. This much is 1300 tokens a second over a line with a round trip of 0.2 s.
_SEND_BUFFER_BYTES = 64 << 10
# While another thread runs Python (an adapter is taken in, a long prompt is rendered), the event loop waits up to this
# long for the interpreter each time it wakes: 5 ms by default, several times a step of the engine.
_SWITCH_SECONDS = 2e-4


def run(app: FastAPI, settings: ApiSettings, *, log_level: str = "info", output: TextIO | None = None) -> None:
    """Serves `app`, made by `create_app`, until SIGTERM or SIGINT, and returns when everything has ended.

    The first signal drains: /readyz turns red, new and queued requests get 503, running ones finish within
    `settings.drain_timeout`. A second one ends them at once, each with an error event. The ready line goes to `output`
    (stderr). Raises ConfigError for an address that may not or cannot be used, and the engine's own error when the
    engine has failed for good.
    """
    refuse_open_public(settings)
    configure_logging(log_level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    gateway: Gateway = app.state.gateway
    listener = bind(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_LAST_WORDS_SECONDS,
    )
    server = DrainingServer(config, gateway)
    with listener, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(server, listener, output or sys.stderr))
    if server.failure is not None:
        raise TunechatError.from_record(server.failure)


def refuse_open_public(settings: ApiSettings) -> None:
    """Raises ConfigError for an address that other machines reach while no key is asked for."""
    if settings.is_public and settings.is_open and not settings.insecure:
        raise ConfigError(
            f"{settings.host} can be reached from other machines, and no API key is set. Set one, or allow it with "
            "--insecure."
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, the only one of the server. Raises ConfigError in one line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"'{host}' is no address of this machine: {error.strerror}.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"Port {port} on {host} is in use; stop what uses it, or choose another.") from None
        raise ConfigError(f"Cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}.") from None
    listener.setblocking(False)
    return listener


class DrainingServer(uvicorn.Server):
    """uvicorn that finishes what runs before it stops listening, and ends with status 0 after a signal."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self.gateway = gateway
        self.failure: ErrorRecord | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. It does not remember the signal: uvicorn would raise it again after a clean end."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Begins to drain; called again, ends what still runs."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._hurry.set()

    async def _drain(self) -> None:
        drain = self.gateway.drain
        drain.begin()
        idle = asyncio.create_task(drain.wait_idle(self.gateway.settings.drain_timeout))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({idle, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, hurry):
            task.cancel()
        if drain.active_requests:
            drain.force()
            await drain.wait_idle(_LAST_WORDS_SECONDS)
        self.should_exit = True


async def _serve(server: DrainingServer, listener: socket.socket, output: TextIO) -> None:
    watcher = asyncio.create_task(_watch(server, listener, output))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def _watch(server: DrainingServer, listener: socket.socket, output: TextIO) -> None:
    """Says when the server is ready, and ends it when its engine is beyond mending."""
    gateway = server.gateway
    await gateway.settled.wait()
    if gateway.failure is None:
        print(ready_line(gateway, listener.getsockname()), file=output, flush=True)
    while True:
        await asyncio.sleep(_FAILURE_POLL_SECONDS)
        if gateway.failure is not None:
            break
    server.failure = gateway.failure
    server.should_exit = True


def ready_line(gateway: Gateway, address: tuple[str, int]) -> str:
    """One line: what is served, where, and a command to try. It never holds a key."""
    host, port = address[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    model = gateway.settings.model
    key = "" if gateway.settings.is_open else ' -H "Authorization: Bearer $TUNECHAT_API_KEYS"'
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}, separators=(",", ":"))
    command = f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"
    return f"Ready: {model} ({gateway.info.quant}, {gateway.info.device}) at {url}/v1 -- try: {command}"
