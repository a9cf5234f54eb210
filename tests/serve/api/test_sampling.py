"""Every number has bounds, and what passes them reaches the engine unchanged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, chat, completion

BIG = 1 << 24
BOUNDS: list[tuple[str, float, float]] = [
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("top_k", -1, BIG),
    ("min_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("repetition_penalty", 0.01, 10),
    ("seed", -(1 << 63), (1 << 63) - 1),
    ("n", 1, 32),
    ("max_tokens", 1, 400),
    ("max_completion_tokens", 1, 400),
    ("min_tokens", 0, 400),
    ("top_logprobs", 0, 20),
]
INTEGERS = {"top_k", "seed", "n", "max_tokens", "max_completion_tokens", "min_tokens", "top_logprobs"}
COMPLETION_BOUNDS: list[tuple[str, float, float]] = [("max_tokens", 0, 400), ("logprobs", 0, 20), ("best_of", 1, 1)]


def beyond(name: str, low: float, high: float) -> list[float]:
    """Values just outside, and far outside."""
    step = 1 if name in INTEGERS or name in {"logprobs", "best_of"} else 1e-6
    far = 10**30 if step == 1 else 1e308
    return [low - step, high + (step if high < 400 else 200 if high == 400 else step), far, -far]


@pytest.mark.parametrize(("name", "low", "high"), BOUNDS, ids=[bound[0] for bound in BOUNDS])
async def test_chat_bounds(serve: Serve, name: str, low: float, high: float) -> None:
    served = await serve({"answer": "x"})
    extra = {"logprobs": True} if name == "top_logprobs" else {}
    for value in (low, high, None):
        response = await served.client.post("/v1/chat/completions", json=chat(**{name: value}, **extra))
        assert response.status_code == 200, response.text
    accepted = len(served.engine.submitted)
    for value in beyond(name, low, high):
        response = await served.client.post("/v1/chat/completions", json=chat(**{name: value}, **extra))
        assert response.status_code == 400, (name, value)
        error = response.json()["error"]
        assert error["param"] == name or error["code"] == "context_length_exceeded"
    assert len(served.engine.submitted) == accepted


@pytest.mark.parametrize(("name", "low", "high"), COMPLETION_BOUNDS, ids=[bound[0] for bound in COMPLETION_BOUNDS])
async def test_completion_bounds(serve: Serve, name: str, low: float, high: float) -> None:
    served = await serve({"answer": "x"})
    for value in (low, high):
        response = await served.client.post("/v1/completions", json=completion(**{name: value, "echo": True}))
        assert response.status_code == 200, response.text
    for value in beyond(name, low, high):
        response = await served.client.post("/v1/completions", json=completion(**{name: value}))
        assert response.status_code == 400, (name, value)


NUMBERS = [bound[0] for bound in BOUNDS]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "1e999", "true", "false", '"1"', "[1]", "{}", "1_0"]
)
async def test_what_is_no_number_is_refused(serve: Serve, name: str, literal: str) -> None:
    served = await serve()
    body = f'{{"model":"tiny","messages":[{{"role":"user","content":"x"}}],"logprobs":true,"{name}":{literal}}}'
    response = await served.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] in (name, None)
    assert not served.engine.submitted


@pytest.mark.parametrize("name", sorted(INTEGERS))
@pytest.mark.parametrize("value", [1.0, 1.5, -0.0])
async def test_a_float_is_no_integer(serve: Serve, name: str, value: float) -> None:
    served = await serve()
    response = await served.client.post("/v1/chat/completions", json=chat(logprobs=True, **{name: value}))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


BAD_BIASES: list[dict[str, Any]] = [
    {"-1": 1}, {"abc": 1}, {"1.0": 1}, {"": 1}, {" 1": 1}, {"٣": 1}, {str(2**31): 1}, {"9" * 16: 1}, {"9" * 17: 1},
    {"1": 101}, {"1": -100.5}, {"1": True}, {"1": None}, {"1": "2"},
]  # fmt: skip


@pytest.mark.parametrize("bias", BAD_BIASES, ids=str)
async def test_biases_outside_the_vocabulary_never_reach_the_engine(serve: Serve, bias: dict[str, Any]) -> None:
    served = await serve()
    for path, body in (("/v1/chat/completions", chat()), ("/v1/completions", completion())):
        response = await served.client.post(path, json=body | {"logit_bias": bias})
        assert response.status_code == 400
        assert response.json()["error"]["param"].startswith("logit_bias")
    assert not served.engine.submitted
    assert (await served.client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_the_first_id_beyond_the_vocabulary_is_refused(serve: Serve) -> None:
    served = await serve()
    size = served.engine.text.vocab_size
    for field, good, bad in (
        ("logit_bias", {str(size - 1): 1}, {str(size): 1}),
        ("stop_token_ids", [size - 1], [size]),
        ("prompt", [size - 1], [0, size]),
    ):
        assert (await served.client.post("/v1/completions", json=completion() | {field: good})).status_code == 200
        response = await served.client.post("/v1/completions", json=completion() | {field: bad})
        assert response.status_code == 400
        assert response.json()["error"]["param"].startswith(field)


async def test_what_is_asked_for_reaches_the_engine(serve: Serve) -> None:
    served = await serve()
    asked = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.3,
        "frequency_penalty": -0.4, "max_tokens": 9, "min_tokens": 2, "seed": 11,
    }  # fmt: skip
    await served.client.post(
        "/v1/chat/completions",
        json=chat(**asked, logit_bias={"3": -5}, stop_token_ids=[4], logprobs=True, top_logprobs=2),
    )
    params = served.engine.submitted[0][1]
    assert {name: getattr(params, name) for name in asked} == asked
    assert params.logit_bias == {3: -5.0}
    assert params.logprobs == 2
    assert params.stop_token_ids == (*served.engine.text.eos_token_ids, 4)


async def test_defaults_are_openais(serve: Serve) -> None:
    served = await serve()
    await served.client.post("/v1/chat/completions", json=chat())
    await served.client.post("/v1/completions", json=completion())
    prompt, params = served.engine.submitted[0]
    assert (params.temperature, params.top_p, params.top_k, params.logprobs) == (1.0, 1.0, 0, None)
    assert params.max_tokens == CONTEXT - len(prompt)
    assert served.engine.submitted[1][1].max_tokens == 16


async def test_off_values_switch_off(serve: Serve) -> None:
    served = await serve()
    await served.client.post("/v1/chat/completions", json=chat(top_k=-1, top_p=0, ignore_eos=True))
    params = served.engine.submitted[0][1]
    assert params.top_k == 0
    assert 0 < params.top_p < 1e-6
    assert params.stop_token_ids == ()


async def test_seeds_count_on_from_the_one_given_and_are_random_without(serve: Serve) -> None:
    served = await serve()
    for seed in (5, -1, (1 << 63) - 1, None, None):
        await served.client.post("/v1/chat/completions", json=chat(n=2, seed=seed))
    seeds = [params.seed for _, params in served.engine.submitted]
    assert seeds[:2] == [5, 6]
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert seeds[6] != seeds[8]
    assert math.isclose(seeds[7] - seeds[6], 1)


async def test_settings_bound_what_schemas_allow(serve: Serve) -> None:
    served = await serve(max_n=2, max_sequences=3, max_stop_strings=2, max_logprobs=3)
    for path, body, param in (
        ("/v1/chat/completions", chat(n=3), "n"),
        ("/v1/chat/completions", chat(stop=["a", "b", "c"]), "stop"),
        ("/v1/chat/completions", chat(logprobs=True, top_logprobs=4), "top_logprobs"),
        ("/v1/completions", completion(logprobs=4), "logprobs"),
        ("/v1/completions", completion(["a", "b"], n=2), "prompt"),
    ):
        response = await served.client.post(path, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    assert not served.engine.submitted


async def test_min_tokens_above_the_limit_is_refused(serve: Serve) -> None:
    served = await serve()
    response = await served.client.post("/v1/chat/completions", json=chat(min_tokens=5, max_tokens=4))
    assert response.json()["error"]["param"] == "min_tokens"
