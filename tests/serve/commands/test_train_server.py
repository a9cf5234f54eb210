"""A private server: awaited, ended, and gone when its command is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tunechat.serve.commands.server import Server
from tunechat.serve.commands.train_server import PrivateServer, found_server
from tunechat.serve.contract.errors import Unavailable
from tunechat.serve.settings import load

# What the probes of a server answer, after some time without one.
SERVER = """
import http.server, pathlib, signal, sys, time

class Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"status": "ready"}')

def leave(*_):
    pathlib.Path(sys.argv[2]).write_text("left in order")
    sys.exit(0)

signal.signal(signal.SIGTERM, leave)
time.sleep(0.3)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Probes)
pathlib.Path(sys.argv[1]).write_text(str(server.server_port))
server.serve_forever()
"""


def report(stage: str, fraction: float | None = None) -> None:
    """Nobody watches."""


def wait_for(path: Path, seconds: float = 20) -> str:
    until = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.02)
    return path.read_text()


def test_it_is_awaited_and_ends_in_order(tmp_path: Path) -> None:
    port, left = tmp_path / "port", tmp_path / "left"
    with (
        PrivateServer((sys.executable, "-c", SERVER, str(port), str(left))) as private,
        Server(f"http://127.0.0.1:{wait_for(port)}") as server,
    ):
        private.await_ready(server, 20, report)
        private.end(20)
        assert left.read_text() == "left in order" and not server.answers()


def test_it_leaves_in_order_whatever_became_of_the_training(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The flags of `serve` come behind; the port is among them.
    script = SERVER.replace('("127.0.0.1", 0)', '("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))')
    left = tmp_path / "left"
    command = (sys.executable, "-c", script, str(tmp_path / "port"), str(left))
    monkeypatch.setattr("tunechat.serve.commands.train_server._SERVE", command)
    with (
        pytest.raises(ZeroDivisionError),
        found_server(load({"port": "1"}).settings, None, may_start=True) as (server, is_private),
    ):
        assert is_private and server.answers()
        raise ZeroDivisionError
    assert left.read_text() == "left in order"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import sys; print('error: the model is gone', file=sys.stderr); sys.exit(1)", "start: the model is gone"),
        ("raise SystemExit(7)", "it ended with status 7"),
    ],
)
def test_what_kept_it_from_starting_is_told(script: str, told: str) -> None:
    with (
        PrivateServer((sys.executable, "-c", script)) as private,
        Server("http://127.0.0.1:1") as server,
        pytest.raises(Unavailable, match=told),
    ):
        private.await_ready(server, 20, report)


def test_one_that_never_answers_is_given_up_and_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    with PrivateServer((sys.executable, "-c", script)) as private, Server("http://127.0.0.1:1") as server:
        pid = int(wait_for(mark))
        with pytest.raises(Unavailable, match="did not start within 0 seconds"):
            private.await_ready(server, 0, report)
    assert not psutil.pid_exists(pid)


def test_it_dies_with_a_command_that_is_killed(tmp_path: Path) -> None:
    port = tmp_path / "port"
    code = f"""
import sys, time
from tunechat.serve.commands.train_server import PrivateServer
PrivateServer((sys.executable, "-c", {SERVER!r}, {str(port)!r}, {str(tmp_path / "left")!r}))
time.sleep(600)
"""
    command = subprocess.Popen([sys.executable, "-c", code])
    try:
        with Server(f"http://127.0.0.1:{wait_for(port)}") as server:
            assert server.answers()
            os.kill(command.pid, signal.SIGKILL)
            command.wait()
            until = time.monotonic() + 20
            while server.answers():
                assert time.monotonic() < until, "the server outlives its command"
                time.sleep(0.05)
    finally:
        command.kill()
        command.wait()


def test_none_is_started_where_a_server_was_named_or_none_may_be(home: Path) -> None:
    settings = load({"url": "http://127.0.0.1:1"}).settings
    with pytest.raises(Unavailable, match="no server answers"), found_server(settings, None, may_start=True):
        pass
    settings = load({"port": "1"}).settings
    with pytest.raises(Unavailable, match="no server answers"), found_server(settings, None, may_start=False):
        pass
