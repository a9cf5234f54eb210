"""Kills, hangs, signals and bad clients: everyone is told once, nothing stays behind, and it goes on."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tunechat.tests.blackbox.conftest import Note, Start
from tunechat.tests.blackbox.server import CONTROL, LEAKS, MODEL, Server, session_members, wait_until
from tunechat.tests.blackbox.streams import ENDLESS, Stream

LONG = {**ENDLESS, "max_tokens": 1500}


def check_one_error_then_close(stream: Stream, code: str) -> None:
    stream.read_to_end()
    assert stream.status == 200
    (error,) = stream.errors
    assert error["code"] == code
    assert b'"error"' in stream.events[-1]
    assert b"[DONE]" not in stream.seen
    assert not LEAKS.search(stream.seen)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_killed_engine_is_told_and_mended(start: Start, golden: str, note: Note) -> None:
    server = start()
    with ThreadPoolExecutor(1) as pool, Stream(server, LONG) as one, Stream(server, {**LONG, "n": 2}) as two:
        whole = pool.submit(server.http.post, "/v1/completions", json={**LONG, "stream": False})
        for stream in (one, two):
            stream.read_until(b'"text"')
        wait_until(lambda: server.metrics()["tunechat_engine_running"] == 4, 5, "four sequences run")
        old = server.engine
        old.kill()
        red = wait_until(lambda: not server.is_ready, 1, "/readyz is red", pause=0.001)
        assert server.http.get("/livez").status_code == 200
        refused = server.http.post("/v1/chat/completions", json=CONTROL)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        for stream in (one, two):
            check_one_error_then_close(stream, "engine_failed")
        failed = whole.result(timeout=10)
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "engine_failed")
    green = wait_until(lambda: server.is_ready, 60, "/readyz is green again")
    note("engine killed to /readyz red, green", f"{red * 1000:.0f} ms, {green:.2f} s")
    assert server.engine.pid != old.pid
    server.check_health(golden)
    assert server.end() == 0


def test_a_hanging_engine_is_replaced(start: Start, golden: str, note: Note) -> None:
    server = start(step_timeout=3, max_batch_tokens=64)
    with Stream(server, LONG) as stream:
        stream.read_until(b'"text"')
        old = server.engine
        old.suspend()
        red = wait_until(lambda: not server.is_ready, 20, "/readyz is red")
        check_one_error_then_close(stream, "engine_failed")
    assert red >= 1
    wait_until(lambda: server.is_ready, 60, "/readyz is green again")
    note("engine stopped to /readyz red, with a step timeout of 3 s", f"{red:.1f} s")
    assert not is_alive(old)
    server.check_health(golden)
    assert server.end() == 0


def test_a_dead_gateway_leaves_no_engine(start: Start, note: Note) -> None:
    server = start()
    with Stream(server, LONG) as stream:
        stream.read_until(b'"text"')
        engine = server.engine
        server.popen.kill()
        gone = wait_until(lambda: not is_alive(engine), 5, "the engine is gone")
    note("gateway killed to engine gone", f"{gone * 1000:.0f} ms")
    server.popen.wait()
    assert not session_members(server.popen.pid)


def test_sigterm_lets_running_streams_finish_and_tells_the_rest(start: Start, note: Note) -> None:
    server = start(max_running=4, drain_timeout=60)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        running = [stack.enter_context(Stream(server, {**ENDLESS, "max_tokens": 600})) for _ in range(4)]
        for stream in running:
            stream.read_until(b'"text"')
        queued = [stack.enter_context(Stream(server, LONG)) for _ in range(4)]
        whole = [pool.submit(server.http.post, "/v1/chat/completions", json=CONTROL) for _ in range(2)]
        wait_until(lambda: server.metrics()["tunechat_engine_waiting"] == 6, 5, "six sequences wait")
        server.popen.send_signal(signal.SIGTERM)
        red = wait_until(lambda: not server.is_ready, 1, "/readyz is red", pause=0.001)
        note("SIGTERM to /readyz red", f"{red * 1000:.0f} ms")
        assert server.http.get("/readyz").json()["status"] == "draining"
        assert server.http.get("/livez").status_code == 200
        late = server.http.post("/v1/chat/completions", json=CONTROL)
        for response in (late, *(future.result(timeout=10) for future in whole)):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
            assert int(response.headers["retry-after"]) >= 1
        for stream in queued:
            stream.read_to_end()
            assert stream.status == 503
            assert "retry-after: " in stream.header_text
            assert b'"shutting_down"' in stream.body
        for stream in running:
            stream.read_to_end()
            assert stream.events[-1] == b"[DONE]"
            assert not stream.errors
            assert sum(b'"text"' in event for event in stream.events) > 100
    assert server.popen.wait(20) == 0
    wait_until(lambda: not session_members(server.popen.pid), 5, "no process is left")


def test_a_second_sigterm_ends_at_once_with_a_word_to_everyone(start: Start, note: Note) -> None:
    server = start(drain_timeout=60)
    with Stream(server, LONG) as one, Stream(server, LONG) as two:
        for stream in (one, two):
            stream.read_until(b'"text"')
        server.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.is_ready, 1, "/readyz is red")
        began = time.monotonic()
        server.popen.send_signal(signal.SIGTERM)
        for stream in (one, two):
            check_one_error_then_close(stream, "stopping")
        assert server.popen.wait(10) == 0
        note("second SIGTERM to exit", f"{time.monotonic() - began:.2f} s")
    wait_until(lambda: not session_members(server.popen.pid), 5, "no process is left")


@pytest.mark.parametrize("count", [12, pytest.param(50, marks=[pytest.mark.acceptance, pytest.mark.timeout(300)])])
def test_clients_that_stop_reading_are_cut_and_cost_nothing(start: Start, golden: str, note: Note, count: int) -> None:
    server = start(send_timeout=1, heartbeat_seconds=1, max_context=512)
    server.check_health(golden)
    before = server.gateway.memory_info().rss
    heavy: dict[str, Any] = {**ENDLESS, "logprobs": 20, "max_tokens": 400}
    with contextlib.ExitStack() as stack:
        frozen = [stack.enter_context(Stream(server, heavy, small=True)) for _ in range(count)]
        assert server.control() == golden
        cut = wait_until(server.is_idle, 100, "all frozen clients are cut")
        # What is left of them is a reset, or the part that fitted into the buffers and then the end.
        endings = [last_words(stream) for stream in frozen]
    assert all(ending and b"[DONE]" not in ending for ending in endings)
    assert server.metrics()["tunechat_engine_aborted_total"] == count
    grown = server.gateway.memory_info().rss - before
    note(f"{count} frozen clients", f"cut after {cut:.1f} s, gateway grew by {grown / 2**20:.1f} MiB")
    assert grown < 20 << 20
    assert server.log.read_text().count('"problem": "client_too_slow"') == count
    server.check_health(golden)
    assert server.end() == 0


@pytest.mark.parametrize("prompts", [1, 4])
def test_a_whole_reply_that_nobody_reads_is_given_up(start: Start, prompts: int) -> None:
    """One that the kernel and the transport's buffer just hold, and one that is larger."""
    server = start(send_timeout=1)
    prompt = [[1000 + at % 97 for at in range(300)]]
    body = {"model": MODEL, "prompt": prompt * prompts, "max_tokens": 0, "echo": True, "logprobs": 20}
    with Stream(server, body, small=True) as stream:
        wait_until(lambda: len(server.clients) == 1, 5, "the connection is there")
        wait_until(lambda: not server.clients, 30, "the connection is gone")
        assert not last_words(stream).endswith(b"}")
    assert server.end() == 0


def last_words(stream: Stream) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        stream.read_to_end()
    return stream.seen


def test_clients_that_leave_the_queue_leave_nothing(start: Start, golden: str) -> None:
    server = start(max_running=2)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Stream(server, LONG)) for _ in range(2)]
        for stream in running:
            stream.read_until(b'"text"')
        queued = [Stream(server, {**LONG, "stream": at % 2 == 0}) for at in range(8)]
        wait_until(lambda: server.metrics()["tunechat_engine_waiting"] == 8, 5, "eight sequences wait")
        for stream in queued:
            stream.close()
        wait_until(lambda: server.metrics()["tunechat_engine_waiting"] == 0, 3, "nothing waits")
        assert server.metrics()["tunechat_engine_running"] == 2
    server.check_health(golden)
    assert server.end() == 0


def test_clients_that_leave_at_any_time_leave_nothing(server: Server, golden: str, note: Note) -> None:
    rng = random.Random(31)
    counted = server.metrics()["tunechat_engine_generated_tokens_total"]
    files, memory = server.gateway.num_fds(), server.gateway.memory_info().rss

    def visit(at: int) -> None:
        path, body = rng.choice(
            [
                ("/v1/completions", {**ENDLESS, "max_tokens": 500}),
                ("/v1/chat/completions", {**CONTROL, "max_tokens": 500, "logprobs": True, "n": 2}),
            ]
        )
        with Stream(server, {**body, "stream": at % 2 == 0}, path=path) as stream:
            if rng.random() < 0.3:
                # A reset instead of an orderly end.
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(rng.uniform(0, 0.5))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(visit, range(100)))
    note("last of 100 leaving clients to idle", f"{server.wait_idle(limit=3) * 1000:.0f} ms")
    server.check_health(golden)
    wait_until(lambda: server.gateway.num_fds() <= files, 10, "no file is left open")
    assert server.gateway.memory_info().rss - memory < 20 << 20
    # All of them to their ends would have been 75,000.
    assert server.metrics()["tunechat_engine_generated_tokens_total"] - counted < 20_000


def test_clients_that_say_half_a_request(server: Server, golden: str) -> None:
    halves = [b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"]
    halves.append(halves[-1] + b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"model": "')
    with contextlib.ExitStack() as stack:
        for half in halves * 10:
            connection = stack.enter_context(socket.create_connection(server.address, timeout=5))
            connection.sendall(half)
        assert server.control() == golden
    server.check_health(golden)


@pytest.mark.acceptance
def test_an_engine_that_always_dies_ends_the_server(start: Start) -> None:
    server = start()
    for _ in range(4):
        server.engine.kill()
        wait_until(lambda: not server.is_ready, 1, "/readyz is red")
        wait_until(lambda: server.is_ready, 60, "/readyz is green again")
    server.engine.kill()
    assert server.popen.wait(20) == 1
    assert server.log.read_text().splitlines()[-1].startswith("error: ")
    assert not session_members(server.popen.pid)
