"""The client against real engine processes that have a toy model."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import psutil
import pytest

from tunechat.serve.contract.errors import (
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    TunechatError,
    Unavailable,
)
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.client import EngineClient
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.restarts import Restarts
from tunechat.tests.serve.engine import toy
from tunechat.tests.serve.engine.harness import greedy
from tunechat.tests.serve.engine.toy import alone

COMMAND = (sys.executable, "-P", toy.__file__)


@asynccontextmanager
async def engine(
    fault: str = "none",
    at: int = 0,
    pause: float = 0.0,
    *,
    max_running: int = 8,
    max_waiting: int = 64,
    **changes: float,
) -> AsyncIterator[EngineClient]:
    """A client that is started, and closed at the end; not waited for."""
    client = EngineClient(
        EngineOptions(model=f"toy:{fault}:{at}:{pause}", home="", max_running=max_running),
        max_waiting=max_waiting,
        restarts=Restarts(most=3, first_delay=0.05),
        command=COMMAND,
        **changes,
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def collect(client: EngineClient, name: str, prompt: list[int], params: SamplingParams) -> tuple[list[int], str]:
    tokens: list[int] = []
    async for output in client.generate(prompt, params, sequence=name):
        tokens += output.tokens
        if output.finish is not None:
            return tokens, output.finish
    raise AssertionError("the stream ended without a finish")


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_requests_at_once_each_get_their_own_text() -> None:
    async with engine() as client:
        assert client.state == "starting"
        assert not client.is_ready
        with pytest.raises(Unavailable):
            client.generate([1], greedy(1), sequence="early")
        info = await client.wait_ready()
        assert (client.state, client.loading, client.failure) == ("ready", None, None)
        assert info.model == "toy"
        requests = [([at, 2, 3], SamplingParams(max_tokens=20, seed=at)) for at in range(20)]
        results = await asyncio.gather(*(collect(client, str(at), *request) for at, request in enumerate(requests)))
        assert results == [alone(*request) for request in requests]
        assert client.pending == 0
        await until(lambda: client.stats.generated_tokens == 400)
        pid = client.pid
    assert client.state == "closed"
    assert pid is not None
    assert not is_alive(pid)
    with pytest.raises(Unavailable):
        client.generate([1], greedy(1), sequence="late")


async def test_what_cannot_be_served_is_refused_before_it_is_sent() -> None:
    async with engine() as client:
        await client.wait_ready()
        with pytest.raises(ContextLengthExceeded, match=r"1001.*1000"):
            client.generate([1] * 1000, greedy(1), sequence="a")
        with pytest.raises(InvalidRequest):
            client.generate([], greedy(1), sequence="b")
        with pytest.raises(InvalidRequest):
            client.generate([40], greedy(1), sequence="c")


async def test_more_than_may_wait_are_turned_away_with_a_time_to_come_back() -> None:
    async with engine(pause=0.02, max_running=2, max_waiting=2) as client:
        await client.wait_ready()
        tasks = [asyncio.create_task(collect(client, str(at), [at], greedy(10))) for at in range(4)]
        await until(lambda: client.pending == 4)
        with pytest.raises(Overloaded) as caught:
            client.generate([1], greedy(1), sequence="e")
        assert caught.value.http_status == 429
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 60
        results = await asyncio.gather(*tasks)
        assert [result[0] for result in results] == [alone([at], greedy(10))[0] for at in range(4)]
        await collect(client, "f", [1], greedy(1))


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_whoever_leaves_early_frees_what_was_held(how: str) -> None:
    async with engine(pause=0.01) as client:
        await client.wait_ready()
        if how == "close":
            async with aclosing(client.generate([1], greedy(900), sequence="a")) as outputs:
                async for output in outputs:
                    assert output.tokens
                    break
        else:
            task = asyncio.create_task(collect(client, "a", [1], greedy(900)))
            await until(lambda: client.stats.running == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert client.pending == 0
        await until(lambda: client.stats.aborted == 1)
        await until(lambda: client.stats.running == 0 and client.stats.blocks_used == 0)


async def test_a_slow_consumer_gets_everything_in_fewer_pieces() -> None:
    async with engine() as client:
        await client.wait_ready()
        tokens, pieces = [], 0
        async for output in client.generate([1], greedy(200, logprobs=0), sequence="a"):
            tokens += output.tokens
            pieces += 1
            assert output.logprobs is not None
            assert [entry.token for entry in output.logprobs] == output.tokens
            await asyncio.sleep(0.2)
        assert tokens == alone([1], greedy(200))[0]
        assert pieces < 100


async def fail_in_flight(client: EngineClient, hurt: Callable[[int], None]) -> None:
    """Three streams, then `hurt` to the engine: each gets one error, and a new engine serves by itself."""
    await client.wait_ready()
    pid = client.pid
    assert pid is not None
    tasks = [asyncio.create_task(collect(client, str(at), [at], greedy(900))) for at in range(3)]
    await until(lambda: client.stats.running == 3)
    hurt(pid)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailed] * 3
    assert not client.is_ready
    assert client.state == "restarting"
    assert client.pending == 0
    with pytest.raises(Unavailable) as caught:
        client.generate([1], greedy(1), sequence="meanwhile")
    assert caught.value.retry_after is not None
    await client.wait_ready()
    assert client.failure is not None
    assert client.restarts == 1
    assert client.pid != pid
    assert not is_alive(pid)
    assert await collect(client, "again", [1, 2], greedy(5)) == alone([1, 2], greedy(5))


async def test_a_killed_engine_is_told_and_mended() -> None:
    async with engine(pause=0.01) as client:
        await fail_in_flight(client, lambda pid: os.kill(pid, signal.SIGKILL))
        assert client.failure is not None
        assert "signal 9" in client.failure.message


async def test_an_engine_that_hangs_is_killed_and_mended() -> None:
    async with engine(pause=0.01, step_timeout=2.0) as client:
        await fail_in_flight(client, lambda pid: os.kill(pid, signal.SIGSTOP))
        assert client.failure is not None
        assert "said nothing" in client.failure.message


@pytest.mark.parametrize(("fault", "status"), [("raise", "failed"), ("exit", "status 7")])
async def test_a_crash_in_the_forward_ends_the_engine_and_not_the_gateway(fault: str, status: str) -> None:
    async with engine(fault, at=10) as client:
        await client.wait_ready()
        pid = client.pid
        assert pid is not None
        tokens = []
        with pytest.raises(EngineFailed):
            async for output in client.generate([1], greedy(50), sequence="a"):
                tokens += output.tokens
        assert len(tokens) == 9
        assert tokens == alone([1], greedy(9))[0]
        await client.wait_ready()
        assert client.failure is not None
        assert status in client.failure.message
        assert not is_alive(pid)


async def test_an_engine_that_keeps_dying_is_given_up() -> None:
    async with engine("start-exit") as client:
        with pytest.raises(TunechatError, match="status 3"):
            await client.wait_ready()
        assert client.state == "failed"
        assert client.pid is None
        with pytest.raises(Unavailable):
            client.generate([1], greedy(1), sequence="a")


async def test_a_model_that_cannot_be_served_is_not_tried_twice() -> None:
    async with engine("no-model") as client:
        with pytest.raises(TunechatError, match="no such model") as caught:
            await client.wait_ready()
        assert caught.value.code == "model_error"
        assert client.state == "failed"


async def test_an_engine_that_hangs_while_it_loads_is_killed() -> None:
    async with engine("start-hang", start_timeout=0.6) as client:
        with pytest.raises(TunechatError, match="said nothing"):
            await client.wait_ready()


async def test_a_command_that_is_not_there_fails_at_once() -> None:
    client = EngineClient(EngineOptions(model="x", home=""), command=["/nonexistent/engine"])
    await client.start()
    with pytest.raises(TunechatError, match="cannot start"):
        await client.wait_ready()
    await client.close()


async def test_closing_while_the_model_loads_leaves_no_process() -> None:
    async with engine("start-hang") as client:
        await until(lambda: client.pid is not None)
        pid = client.pid
        assert pid is not None
    assert not is_alive(pid)


async def test_streams_end_with_an_error_when_the_client_is_closed() -> None:
    async with engine(pause=0.01) as client:
        await client.wait_ready()
        task = asyncio.create_task(collect(client, "a", [1], greedy(900)))
        await until(lambda: client.stats.running == 1)
        await client.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await task


PARENT = """
import asyncio, sys
from tunechat.serve.engine.client import EngineClient
from tunechat.serve.engine.options import EngineOptions

async def main():
    client = EngineClient(EngineOptions(model=sys.argv[1], home=""), command=sys.argv[2:])
    await client.start()
    if "start" not in sys.argv[1]:
        await client.wait_ready()
    while client.pid is None:
        await asyncio.sleep(0.01)
    print(client.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("model", ["toy:none:0:0", "toy:start-hang:0:0"])
def test_the_engine_does_not_outlive_a_killed_gateway(model: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, model, *COMMAND], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    try:
        child.wait(5)
    finally:
        if is_alive(child.pid):
            child.kill()
