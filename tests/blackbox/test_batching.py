"""What a request gets depends on nothing but the request: not on its neighbours, its chunks, or what was cached."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tunechat.tests.blackbox.server import MODEL, Server

pytestmark = pytest.mark.usefixtures("healthy")

TOKENS = 12
COMMON = "The keeper of the lighthouse wrote in his book every evening, and this is what he wrote: " * 4
TOPICS = ("the wind", "ships", "a gull", "rain", "oil for the lamp", "his brother", "the stairs", "fish")
# Sixteen share a long beginning, six are short, two are longer than one step even when they are alone.
PROMPTS = (
    *(f"{COMMON}About {topic}." for topic in TOPICS),
    *(f"{COMMON}More about {topic}:" for topic in TOPICS),
    *(f"{topic} is" for topic in TOPICS[:6]),
    *(f"{number} " + COMMON * 7 + topic for number, topic in enumerate(TOPICS[6:])),
)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    logprobs: tuple[float, ...]
    cached: int


async def ask(client: httpx.AsyncClient, prompt: str, salt: str, **changes: Any) -> Answer:
    body = {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": TOKENS, "logprobs": 0, "cache_salt": salt}
    response = await client.post("/v1/completions", json={**body, **changes})
    assert response.status_code == 200, response.text
    reply = response.json()
    (choice,) = reply["choices"]
    cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    return Answer(choice["text"], tuple(choice["logprobs"]["token_logprobs"]), cached)


async def disturb(client: httpx.AsyncClient, rng: random.Random, salt: str) -> None:
    """A request that is given up at some time: queued, reading its prompt, or writing."""
    body = {"prompt": rng.choice(PROMPTS), "max_tokens": 400, "seed": rng.randrange(100), "cache_salt": salt}
    limit = rng.uniform(0.02, 2.0)
    try:
        async with asyncio.timeout(limit):
            await client.post("/v1/completions", json={"model": MODEL, **body, "stream": rng.random() < 0.5})
    except TimeoutError:
        return


async def burst(client: httpx.AsyncClient, rng: random.Random, salt: str) -> list[Answer]:
    """All prompts at once, in any order, among others that are sampled and others that are given up."""
    order = rng.sample(range(len(PROMPTS)), len(PROMPTS))
    asked = [ask(client, PROMPTS[at], salt) for at in order]
    sampled = [ask(client, PROMPTS[at], salt, temperature=1.0, seed=at, n=1) for at in range(4)]
    noise = [disturb(client, rng, salt) for _ in range(8)]
    answers = await asyncio.gather(*asked, *sampled, *noise)
    by_prompt = dict(zip(order, answers, strict=False))
    return [by_prompt[at] for at in range(len(PROMPTS))]


def same(given: Sequence[Answer], expected: Sequence[Answer]) -> None:
    for prompt, one, other in zip(PROMPTS, given, expected, strict=True):
        assert (one.text, one.logprobs) == (other.text, other.logprobs), prompt[-40:]


async def test_greedy_answers_are_the_same_in_any_company(server: Server) -> None:
    rng = random.Random(47)
    async with httpx.AsyncClient(base_url=server.url, timeout=100, trust_env=False) as client:
        alone = [await ask(client, prompt, f"alone {at}") for at, prompt in enumerate(PROMPTS)]
        assert not any(answer.cached for answer in alone)
        cold = await burst(client, rng, "together")
        same(cold, alone)
        warm = await burst(client, rng, "together")
        same(warm, alone)
    shared = [at for at, prompt in enumerate(PROMPTS) if len(prompt) > 100]
    assert all(warm[at].cached > 0 for at in shared)
    assert sum(answer.cached for answer in warm) > sum(answer.cached for answer in cold) > 0


async def test_salts_never_share_what_was_computed(server: Server) -> None:
    prompt = COMMON + "The end."
    async with httpx.AsyncClient(base_url=server.url, timeout=100, trust_env=False) as client:
        for salt in ("first", "second", ""):
            fresh = await ask(client, prompt, salt)
            again = await ask(client, prompt, salt)
            assert fresh.cached == 0
            assert again.cached > 0
            assert (again.text, again.logprobs) == (fresh.text, fresh.logprobs)
