"""Where a server says no: the end of the context, numbers without measure, and a full queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tunechat.tests.blackbox.conftest import Note
from tunechat.tests.blackbox.server import MODEL, Server, serving, wait_until

CONTEXT = 512
RUNNING, WAITING = 2, 2
ASK: dict[str, Any] = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0}


@pytest.fixture(scope="module")
def small(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a short context, a cache that just holds it once, and room for few requests."""
    log = tmp_path_factory.mktemp("small") / "server.log"
    told = {"max_context": CONTEXT, "cache_bytes": "24MiB", "max_running": RUNNING, "max_waiting": WAITING}
    with serving(default_home, log, **told) as server:
        yield server
        assert server.end() == 0


@pytest.fixture(autouse=True)
def healthy_again(small: Server, golden: str) -> Iterator[None]:
    yield
    small.check_health(golden)


def complete(server: Server, **changes: Any) -> httpx.Response:
    return server.http.post("/v1/completions", json={**ASK, **changes})


def words(count: int, first: int = 1000) -> list[int]:
    """A prompt of so many tokens."""
    return [first + at % 97 for at in range(count)]


def test_the_whole_context_can_be_used(small: Server) -> None:
    assert small.http.get("/v1/models").json()["data"][0]["max_model_len"] == CONTEXT
    reply = complete(small, prompt=words(CONTEXT - 1), max_tokens=1).json()
    assert reply["usage"]["total_tokens"] == CONTEXT
    reply = complete(small, prompt=words(CONTEXT - 8), max_tokens=8, logit_bias={"2": -100, "0": -100}).json()
    assert reply["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize(("beyond", "asked"), [(0, 1), (1, 1), (1, None), (-1, 2), (5000, 1), (50_000, 16)])
@pytest.mark.parametrize("stream", [False, True])
def test_beyond_it_both_numbers_are_said(small: Server, beyond: int, asked: int | None, stream: bool) -> None:
    response = complete(small, prompt=words(CONTEXT + beyond), max_tokens=asked, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    assert str(CONTEXT) in error["message"] and str(CONTEXT + beyond) in error["message"]


def test_a_long_conversation_is_refused_not_cut(small: Server) -> None:
    talk = [{"role": "user", "content": "word " * CONTEXT}]
    response = small.http.post("/v1/chat/completions", json={"model": MODEL, "messages": talk})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert str(CONTEXT) in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 10**9),
        ("best_of", 10**9),
        ("logprobs", 10**6),
        ("max_tokens", 10**12),
        ("max_tokens", -1),
        ("min_tokens", 10**12),
        ("temperature", 1e308),
        ("top_p", -0.1),
        ("top_k", 1 << 70),
        ("seed", 1 << 80),
        ("frequency_penalty", 3),
        ("n", True),
        ("n", 1.0),
        ("stop", ["x"] * 1000),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {str(1 << 31): 1}),
        ("prompt", [-1]),
        ("prompt", [1 << 31]),
        ("prompt", [49_152]),
        ("prompt", ""),
        ("prompt", []),
    ],
    ids=lambda value: str(value)[:16],
)
def test_numbers_without_measure_name_their_field(small: Server, field: str, value: Any) -> None:
    response = complete(small, **{"max_tokens": 2, field: value})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(field)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(small: Server, number: str) -> None:
    body = f'{{"model": "{MODEL}", "prompt": "x", "max_tokens": 2, "temperature": {number}}}'
    response = small.http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text


def test_more_choices_than_ever_fit_are_refused_for_good(small: Server) -> None:
    response = complete(small, n=RUNNING + WAITING + 1, max_tokens=1)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")


async def test_a_full_queue_says_when_to_come_back_and_the_client_does(small: Server, note: Note) -> None:
    async with openai.AsyncOpenAI(base_url=f"{small.url}/v1", api_key="any", max_retries=0) as client:
        asked: dict[str, Any] = {**ASK, "max_tokens": CONTEXT - 60, "logit_bias": {"2": -100, "0": -100}}
        running = [asyncio.create_task(client.completions.create(**asked)) for _ in range(RUNNING + WAITING)]
        await asyncio.to_thread(
            wait_until,
            lambda: (
                small.metrics()["tunechat_engine_running"] == RUNNING
                and small.metrics()["tunechat_engine_waiting"] == WAITING
            ),
            10,
            "a full queue",
        )
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as refused:
            await client.completions.create(**asked)
        note("refused with 429 in", f"{(time.monotonic() - began) * 1000:.0f} ms")
        assert (refused.value.code, refused.value.type) == ("overloaded", "overloaded_error")
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        with pytest.raises(openai.RateLimitError):
            await client.completions.create(**asked, stream=True)
        late = await client.with_options(max_retries=60).completions.create(**{**asked, "max_tokens": 2})
        assert late.usage is not None and late.usage.completion_tokens == 2
        replies = await asyncio.gather(*running)
    assert len({reply.choices[0].text for reply in replies}) == 1
