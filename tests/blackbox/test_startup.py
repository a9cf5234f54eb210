"""Starting, and starting in vain: one line that says why, an exit status, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tunechat.tests.blackbox.conftest import Note, Start
from tunechat.tests.blackbox.server import COMMAND, LEAKS, Server, environment, session_members, wait_until


def test_a_second_start_is_quick_and_leaves_nothing(start: Start, golden: str, note: Note) -> None:
    server = start()
    note("second start to the ready line", f"{server.start_seconds:.2f} s")
    assert server.start_seconds < 20
    server.check_health(golden)
    assert server.end() == 0


def test_the_port_answers_before_the_model_is_loaded(default_home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (tmp_path / "log").open("wb") as log:
        popen = subprocess.Popen(
            [COMMAND, "serve", "--port", str(port)],
            env=environment(default_home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        states: list[tuple[int, int]] = []

        def is_ready() -> bool:
            try:
                states.append((status_of(port, "/livez"), status_of(port, "/readyz")))
            except ConnectionRefusedError:
                return False
            return states[-1][1] == 200

        wait_until(is_ready, 60, "/readyz is 200", pause=0.005)
        assert states[0] == (200, 503)
        assert {livez for livez, _ in states} == {200}
        popen.terminate()
        assert popen.wait(20) == 0
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait()
    wait_until(lambda: not session_members(popen.pid), 5, "no process is left")


def status_of(port: int, path: str) -> int:
    """The status that a bare HTTP/1.0 client gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("flags", "status", "reason"),
    [
        (["--port", "TAKEN"], 2, r"Port \d+ on 127\.0\.0\.1 is in use"),
        (["--host", "0.0.0.0"], 2, "no API key is set"),
        (["--host", "192.0.2.1", "--api-key", "long-enough-key"], 2, "Cannot listen on 192.0.2.1"),
        (["no-such-model.gguf"], 1, "no-such-model.gguf"),
        (["--quant", "int5"], 2, "quant"),
        (["--threads", "many"], 2, "threads"),
        (["--max-batch-tokens", "16", "--max-running", "64"], 2, "max_batch_tokens"),
        (["--api-key", "short"], 2, "API key"),
        (["--cache-bytes", "1000000"], 2, "cache_bytes 1000000 holds 16 tokens"),
        (["--quant", "nf4", "--device", "tpu"], 2, "device"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_start_in_vain(default_home: Path, flags: list[str], status: int, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = [str(taken.getsockname()[1]) if flag == "TAKEN" else flag for flag in flags]
        popen = subprocess.Popen(
            [COMMAND, "serve", *flags],
            env=environment(default_home) | {"HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        out, err = popen.communicate(timeout=60)
    assert (popen.returncode, out) == (status, b"")
    assert re.search(reason, err.decode()), err
    assert len(err.decode().strip().splitlines()) == 1, err
    assert not re.search(rb"Traceback|\.py\b", err)
    assert not session_members(popen.pid)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 0.6])
def test_a_start_that_is_broken_off_leaves_nothing(
    default_home: Path, tmp_path: Path, seconds: float, sent: signal.Signals
) -> None:
    """So long after the engine was started, for the whole group, as a terminal does it."""
    with (tmp_path / "log").open("wb") as log:
        popen = subprocess.Popen(
            [COMMAND, "serve"],
            env=environment(default_home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: bool(psutil.Process(popen.pid).children()), 30, "an engine is started", pause=0.001)
        time.sleep(seconds)
        os.killpg(popen.pid, sent)
        assert popen.wait(15) == 0
        wait_until(lambda: not session_members(popen.pid), 5, "no process is left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_an_unknown_setting_is_named(default_home: Path) -> None:
    done = subprocess.run(
        [COMMAND, "serve"], env=environment(default_home, prot=1), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "TUNECHAT_PROT" in done.stderr and "TUNECHAT_PORT" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_ready_lines_command_works_as_it_stands(server: Server) -> None:
    """The words after `try:` are split as a shell would and sent as curl would, over a bare socket."""
    words = shlex.split(re.search("try: (curl .*)", server.log.read_text())[1])  # type: ignore[index]
    url, headers, body = words[1], [words[at + 1] for at, word in enumerate(words) if word == "-H"], words[-1]
    host, port = server.address
    path = url.removeprefix(server.url)
    head = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {len(body)}", "Connection: close"]
    with socket.create_connection((host, port), timeout=60) as connection:
        connection.sendall(("\r\n".join([*head, *headers]) + "\r\n\r\n" + body).encode())
        answer = connection.makefile("rb").read()
    top, _, content = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(content)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 500 + b"\r\n",
    ],
    ids=lambda raw: raw[:40].decode(),
)
def test_what_is_no_request_gets_a_plain_refusal(server: Server, healthy: None, raw: bytes) -> None:
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert not LEAKS.search(answer)
