"""What readers that stopped reading cost the others: nothing that can be measured."""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.blackbox.conftest import Note
from tunechat.tests.blackbox.server import CONTROL, Server, serving, wait_until
from tunechat.tests.blackbox.streams import ENDLESS, Stream

FROZEN, LIVE = 50, 4
TOKENS = 200
ROUNDS = 12
CHAT = "/v1/chat/completions"
# Some 300 KB a reply, of which the sockets hold less than 200.
HEAVY: dict[str, Any] = {
    **CONTROL,
    "stream": True,
    "logprobs": True,
    "top_logprobs": 20,
    "max_tokens": 150,
    "logit_bias": ENDLESS["logit_bias"],
}


def p99_of_live_streams(server: Server) -> float:
    """The 99th percentile of the times between tokens, in milliseconds, as LIVE clients that read see them."""
    bodies = [{**ENDLESS, "prompt": f"Story number {at}:", "max_tokens": TOKENS} for at in range(LIVE)]
    gaps: list[float] = []
    last: dict[socket.socket, float] = {}
    with contextlib.ExitStack() as stack:
        streams = {stream.socket: stream for stream in (stack.enter_context(Stream(server, body)) for body in bodies)}
        while streams:
            readable, _, _ = select.select(list(streams), [], [], 60)
            assert readable
            for connection in readable:
                data = connection.recv(1 << 16)
                now = time.perf_counter()
                stream = streams[connection]
                stream.seen += data
                if b'"text"' in data:
                    gaps.append(now - last.get(connection, now))
                    last[connection] = now
                if not data or stream.seen.endswith(b"\r\n0\r\n\r\n"):
                    assert stream.events[-1] == b"[DONE]" and not stream.errors
                    del streams[connection]
    return sorted(gaps)[int(len(gaps) * 0.99)] * 1000


def processor_time(server: Server) -> float:
    """Seconds of processor that the gateway has used."""
    times = server.gateway.cpu_times()
    return float(times.user + times.system)


def answered(server: Server) -> float:
    """How many chats have been answered to their end."""
    return server.metrics().get(f'tunechat_requests_total{{method="POST",route="{CHAT}",status="200"}}', 0)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_live_streams_do_not_feel_readers_that_stopped(
    default_home: Path, tmp_path: Path, golden: str, note: Note
) -> None:
    """The engine has made all that the frozen readers asked for, which it does without waiting for them; the server
    holds what they have not read and waits for them. Until then they are a batch like any other.

    Two servers take turns, one with the frozen readers and one without, so that what else the machine does meets both.
    The bound is 10 % on the median ratio of a turn, and three standard errors of it: they come from how much
    two turns of the quiet server differ, so a machine at rest is held to little more than 10 %, and a busy one shows
    little. The gateway's processor time, which others on the machine hardly change, is bounded beside it.
    """
    told = {"send_timeout": 600, "heartbeat_seconds": 1, "max_context": 512}
    with (
        serving(default_home, tmp_path / "frozen.log", **told) as frozen,
        serving(default_home, tmp_path / "quiet.log", **told) as quiet,
        contextlib.ExitStack() as stack,
    ):
        for server in (frozen, quiet):
            server.check_health(golden)
            p99_of_live_streams(server)
        chats, memory = answered(frozen), frozen.gateway.memory_info().rss
        for _ in range(FROZEN):
            stack.enter_context(Stream(frozen, HEAVY, path=CHAT, small=True))
        wait_until(lambda: frozen.metrics()["tunechat_engine_running"] == FROZEN, 60, "all frozen readers are served")
        wait_until(frozen.is_idle, 300, "the engine is done with them")
        turns: list[tuple[float, float]] = []
        spent = [-processor_time(server) for server in (quiet, frozen)]
        for turn in range(ROUNDS):
            order = (frozen, quiet) if turn % 2 else (quiet, frozen)
            seen = {id(server): p99_of_live_streams(server) for server in order}
            turns.append((seen[id(quiet)], seen[id(frozen)]))
        spent = [before + processor_time(server) for before, server in zip(spent, (quiet, frozen), strict=True)]
        # None of them was answered or cut meanwhile, and what is kept for them is bounded.
        assert answered(frozen) == chats
        assert frozen.gateway.memory_info().rss - memory < 40 << 20
        assert frozen.log.read_text().count("client_too_slow") == 0
        stack.close()
        frozen.check_health(golden)
        assert frozen.end() == 0 and quiet.end() == 0
    ratio = math.exp(statistics.median(math.log(with_them / without) for without, with_them in turns))
    steps = [abs(math.log(one[0] / other[0])) for one, other in itertools.pairwise(turns)]
    # A median of |x - y| is 0.954 standard deviations of a normal x, and a median's error 1.253 of a mean's.
    error = 1.253 * statistics.median(steps) / 0.954 / math.sqrt(ROUNDS) * math.sqrt(2)
    without, with_them = (statistics.median(column) for column in zip(*turns, strict=True))
    note(
        f"inter-token p99 of {LIVE} streams, alone and beside {FROZEN} frozen readers",
        f"{without:.1f} ms, {with_them:.1f} ms; ratio {ratio:.3f}, standard error {error:.3f}; "
        f"the gateway's processor time {spent[0]:.2f} s, {spent[1]:.2f} s",
    )
    assert spent[1] <= 1.5 * spent[0]
    assert ratio <= 1.10 * math.exp(3 * error)
