"""The server that a training runs on: the one that is there, or a private one that ends with the command."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..contract.errors import Unavailable
from ..settings import Settings
from .output import Report, progress
from .server import Server

_SERVE = (sys.executable, "-P", "-c", "from tunechat.serve.cli import main; main()", "serve")
_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.1
_KILL_SECONDS = 5.0
# What a server may need beyond the time that it gives to requests: a training writes its checkpoint meanwhile.
_LAST_SECONDS = 30.0
_TAIL_BYTES = 16 << 10


@contextmanager
def found_server(settings: Settings, model: str | None, *, may_start: bool) -> Iterator[tuple[Server, bool]]:
    """A server that is ready, and whether it is private: the one of the settings, else one that serves `model`.

    Raises Unavailable when a URL was given and nothing answers there, when none answers and none may be started, and
    when the one that was started ended.
    """
    from .asking import await_ready

    with Server.admin_of(settings) as server:
        if settings.url or not may_start or server.answers():
            with progress() as report:
                await_ready(server, settings.start_timeout, report)
            yield server, False
            return
    port = _free_port()
    flags = ([model] if model else []) + ["--host", _HOST, "--port", str(port), "--log-level", "warning"]
    mine = settings.model_copy(update={"url": f"http://{_HOST}:{port}"})
    with PrivateServer((*_SERVE, *flags)) as private, Server.admin_of(mine) as server:
        with progress() as report:
            private.await_ready(server, settings.start_timeout, report)
        try:
            yield server, True
        finally:
            private.end(settings.drain_timeout + _LAST_SECONDS)


class PrivateServer:
    """A process of a server that dies with this one, however this one dies. Left as a context manager, it is killed."""

    def __init__(self, command: Sequence[str]) -> None:
        from ..jobs import guard

        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            # In a session of its own, where Ctrl-C does not reach it: this process says what is to become of it.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(Path(guard.__file__)), *command],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError:
            self._log.close()
            raise

    def __enter__(self) -> PrivateServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(0)

    def await_ready(self, server: Server, limit: float, report: Report) -> None:
        """Returns when it takes requests. Raises Unavailable with its own last words when it has ended instead."""
        from .asking import await_ready

        began = time.monotonic()
        report("starting a server")
        while not server.answers():
            self._check()
            if time.monotonic() - began > limit:
                raise Unavailable(f"a private server did not start within {limit:.0f} seconds")
            time.sleep(_LOOK_SECONDS)
        try:
            await_ready(server, limit, report)
        except Unavailable:
            self._check()
            raise

    def end(self, within: float) -> None:
        """Asks it to leave, and kills it and all its children when it has not within so many seconds."""
        if self._log.closed:
            return
        try:
            if within > 0:
                self._process.terminate()
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._kill()
        finally:
            self._kill()
            self._log.close()

    def _kill(self) -> None:
        # The guard takes the end of the pipe for the death of this process, and kills what it guards.
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _check(self) -> None:
        """Raises Unavailable if it has ended."""
        if self._process.poll() is None:
            return
        self._log.seek(max(0, self._log.seek(0, 2) - _TAIL_BYTES))
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        told = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
        reason = told or (lines[-1] if lines else f"it ended with status {self._process.returncode}")
        raise Unavailable(f"a private server could not start: {reason}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
