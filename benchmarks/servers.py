"""Servers under measurement: each a child process that is started, waited for, and ended by its id."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tunechat.serve.base.source import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class Server:
    """How to start one, and where it says that it is ready. `{port}` in the command is filled in."""

    name: str
    command: tuple[str, ...]
    health: str
    model: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def shell_line(self) -> str:
        """The command as a user would type it."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])


def tunechat_server(home: Path, *, name: str = "tunechat", program: Path | None = None) -> Server:
    """This server with the default model, prepared in `home`; `program` is another release's command."""
    command = program or Path(sys.executable).parent / "tunechat"
    return Server(
        name=name,
        command=(str(command), "serve", "--port", "{port}"),
        health="/readyz",
        model=DEFAULT_MODEL,
        environment={"TUNECHAT_HOME": str(home)},
    )


@contextmanager
def running(server: Server, log: Path, ready_within: float = 240.0) -> Iterator[str]:
    """Gives the base URL of the server while it runs. Raises RuntimeError when it does not get ready."""
    port = free_port()
    command = [part.format(port=port) for part in server.command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **server.environment}
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url + server.health, ready_within, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], url: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - loopback, made here
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not get ready; its log ends with:\n{log.read_text(errors='replace')[-2000:]}")
