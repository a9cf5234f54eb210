"""The engine's own process with a real runner on a tiny model; and what it does when it is spoken to wrongly."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tunechat.serve.contract.errors import EngineFailed, TunechatError
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.client import EngineClient
from tunechat.serve.engine.options import EngineOptions
from tunechat.tests.serve.engine import toy
from tunechat.tests.serve.engine.harness import greedy
from tunechat.tests.tiny_models import make_tiny


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, "llama")
    home = tmp_path_factory.mktemp("home")
    return EngineOptions(model=str(folder), home=str(home), quant="int4", device="cpu", threads=1, cache_bytes=1 << 20)


@pytest_asyncio.fixture
async def client(options: EngineOptions) -> AsyncIterator[EngineClient]:
    client = EngineClient(options)
    await client.start()
    await client.wait_ready()
    yield client
    await client.close()


async def complete(client: EngineClient, name: str, prompt: list[int], params: SamplingParams) -> list[int]:
    return [token async for output in client.generate(prompt, params, sequence=name) for token in output.tokens]


async def test_a_real_model_gives_each_request_its_own_text_and_survives_a_kill(client: EngineClient) -> None:
    info = client.info
    assert info is not None
    assert (info.quant, info.device, info.context_length) == ("int4", "cpu", 512)
    prompts = [[7 * at % 256 for at in range(start, start + length)] for start, length in ((0, 3), (1, 90), (5, 40))]
    params = [greedy(24), SamplingParams(max_tokens=24, seed=5), greedy(24, repetition_penalty=1.2)]
    requests = list(zip(prompts, params, strict=True))
    alone = [await complete(client, f"alone-{at}", *request) for at, request in enumerate(requests)]
    together = await asyncio.gather(
        *(complete(client, f"{turn}-{at}", *request) for turn in "abc" for at, request in enumerate(requests))
    )
    assert together == alone * 3
    assert all(len(tokens) == 24 for tokens in alone)

    assert client.pid is not None
    with pytest.raises(EngineFailed):
        async for output in client.generate([1], greedy(500), sequence="hurt"):
            if len(output.tokens) > 0 and client.is_ready:
                os.kill(client.pid, signal.SIGKILL)
    await client.wait_ready()
    assert await complete(client, "again", *requests[1]) == alone[1]


async def test_a_model_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    client = EngineClient(EngineOptions(model=str(tmp_path / "nothing"), home=str(tmp_path)))
    await client.start()
    with pytest.raises(TunechatError) as caught:
        await client.wait_ready()
    assert caught.value.code in ("model_error", "config_error")
    assert client.state == "failed"
    await client.close()


@contextmanager
def bare_engine() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """An engine process with a toy model, and our end of its socket."""
    ours, theirs = socket.socketpair()
    options = EngineOptions(model="toy:none:0:0", home="").to_json()
    command = [sys.executable, "-P", toy.__file__, "--fd", str(theirs.fileno()), options]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as process:
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()


def test_it_leaves_when_the_gateway_closes_the_connection() -> None:
    with bare_engine() as (process, connection):
        assert connection.recv(1)
        connection.close()
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x02\x00\x00\x00\xc1\xc1"])
def test_it_leaves_when_it_is_sent_what_is_no_message(garbage: bytes) -> None:
    with bare_engine() as (process, connection):
        assert connection.recv(1)
        connection.sendall(garbage)
        assert process.wait(10) == 1


def test_signals_to_the_whole_server_leave_the_engine_to_the_gateway() -> None:
    with bare_engine() as (process, connection):
        assert connection.recv(1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        connection.close()
        assert process.wait(10) == 0
