from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.errors import EngineFailed, TunechatError
from tunechat.serve.contract.messages import SequenceOutput, TokenLogprob
from tunechat.serve.engine.stream import OutputStream


def news(*tokens: int, finish: str | None = None) -> SequenceOutput:
    return SequenceOutput(
        sequence="a",
        tokens=list(tokens),
        logprobs=[TokenLogprob(token=token, logprob=-1.0) for token in tokens],
        finish=finish,
    )


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1), st.data())
def test_nothing_is_lost_or_doubled_however_slow_the_consumer(pushed: list[list[int]], data: st.DataObject) -> None:
    async def run() -> None:
        stream, taken = OutputStream(), []
        for at, tokens in enumerate(pushed):
            stream.push(news(*tokens, finish="length" if at == len(pushed) - 1 else None))
            if data.draw(st.booleans()) or stream.is_over:
                output = await stream.take()
                assert output.logprobs is not None
                assert [entry.token for entry in output.logprobs] == output.tokens
                taken += output.tokens
        assert taken == [token for tokens in pushed for token in tokens]
        assert output.finish == "length"

    asyncio.run(run())


async def test_what_came_before_an_error_is_given_first() -> None:
    stream = OutputStream()
    stream.push(news(1, 2))
    stream.fail(EngineFailed("gone"))
    stream.fail(EngineFailed("twice"))
    stream.push(news(3))
    assert (await stream.take()).tokens == [1, 2]
    with pytest.raises(EngineFailed, match="gone"):
        await stream.take()


async def test_an_error_of_the_engine_is_raised_as_its_own_kind() -> None:
    stream = OutputStream()
    stream.push(SequenceOutput(sequence="a", error=EngineFailed("gone").record))
    with pytest.raises(TunechatError) as caught:
        await stream.take()
    assert (caught.value.code, caught.value.http_status) == ("engine_failed", 503)


async def test_log_probabilities_of_the_prompt_survive_merging() -> None:
    stream = OutputStream()
    entries = [None, TokenLogprob(token=1, logprob=-2.0)]
    stream.push(SequenceOutput(sequence="a", tokens=[1], prompt_logprobs=entries))
    stream.push(news(2, finish="stop"))
    output = await stream.take()
    assert (output.tokens, output.prompt_logprobs, output.finish) == ([1, 2], entries, "stop")


async def test_a_waiting_consumer_is_woken() -> None:
    stream = OutputStream()
    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    assert not taking.done()
    stream.push(news(5))
    assert (await taking).tokens == [5]
