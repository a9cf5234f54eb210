"""The official client, unmodified, against a real server: every answer it knows how to ask for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tunechat.tests.blackbox.conftest import Note
from tunechat.tests.blackbox.server import MODEL, Server, wait_until

pytestmark = pytest.mark.usefixtures("healthy_at_end")

ASK: Any = [{"role": "user", "content": "Tell me about the sea."}]
GREEDY: dict[str, Any] = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 24}
SAMPLED: dict[str, Any] = {**GREEDY, "temperature": 1.0}


@pytest.fixture
async def asynchronous(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def text_of(reply: Any) -> str:
    return str(reply.choices[0].message.content)


def ids_of(server: Server, text: str, **options: Any) -> list[int]:
    answer = server.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False, **options})
    return list(answer.json()["tokens"])


def test_chat_says_who_answered_and_what_it_cost(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**GREEDY)
    (choice,) = reply.choices
    assert (reply.object, reply.model, choice.message.role) == ("chat.completion", MODEL, "assistant")
    assert reply.id.startswith("chatcmpl-")
    assert abs(reply.created - time.time()) < 60
    assert reply.system_fingerprint is not None and reply.system_fingerprint.startswith("fp_")
    assert choice.message.content
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 24
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 24


def test_a_stream_is_the_same_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY)
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == text_of(whole)
    assert len(chunks) > 10
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    usage = chunks[-1].usage
    assert usage is not None and whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, 24)


def test_no_usage_chunk_unasked(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)


def test_the_stream_helper_collects_all_choices(client: openai.OpenAI) -> None:
    # The helper takes an answer that was cut at its length for a failure.
    asked: dict[str, Any] = {**SAMPLED, "n": 2, "seed": 3, "max_tokens": 200, "stop": "e"}
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    whole = client.chat.completions.create(**asked)
    assert [choice.message.content for choice in final.choices] == [choice.message.content for choice in whole.choices]
    assert {choice.finish_reason for choice in final.choices} == {"stop"}


def test_choices_differ_and_the_first_is_the_only_one(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**SAMPLED, n=3, seed=11)
    texts = [choice.message.content for choice in reply.choices]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = client.chat.completions.create(**SAMPLED, seed=11)
    assert texts[0] == text_of(alone)
    assert reply.usage is not None and alone.usage is not None
    assert reply.usage.prompt_tokens == alone.usage.prompt_tokens


def test_a_seed_gives_its_text_again_and_another_seed_another(client: openai.OpenAI) -> None:
    texts = [text_of(client.chat.completions.create(**SAMPLED, seed=seed)) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_logprobs_spell_the_text_best_first(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=5)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 24
    spelled = b"".join(bytes(entry.bytes or []) for entry in logprobs.content)
    assert spelled.decode() == text_of(reply)
    for entry in logprobs.content:
        values = [rival.logprob for rival in entry.top_logprobs]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, values[0])
        assert sum(map(math.exp, values)) <= 1 + 1e-4


def test_logprobs_of_a_stream_are_those_of_the_whole(client: openai.OpenAI) -> None:
    wanted = {**GREEDY, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**wanted).choices[0].logprobs
    assert whole is not None
    streamed = [
        entry
        for chunk in client.chat.completions.create(**wanted, stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for entry in choice.logprobs.content or []
    ]
    assert streamed == whole.content


@pytest.mark.parametrize("seed", range(6))
def test_streams_of_wild_text_are_the_whole_text(client: openai.OpenAI, seed: int) -> None:
    """Tokens that no model would choose: halves of characters, scripts of all kinds, control tokens."""
    wild: dict[str, Any] = {"model": MODEL, "temperature": 2.0, "max_tokens": 40, "seed": seed}
    wild["prompt"] = [300 + 7919 * seed * at % 48_000 for at in range(1, 9)]
    whole = client.completions.create(**wild, extra_body={"ignore_eos": True})
    pieces = [
        chunk.choices[0].text
        for chunk in client.completions.create(**wild, stream=True, extra_body={"ignore_eos": True})
    ]
    assert "".join(pieces) == whole.choices[0].text
    assert whole.usage is not None and whole.usage.completion_tokens == 40


@pytest.mark.parametrize("text", ["สวัสดีครับ", "👩‍👩‍👧‍👦🏳️‍🌈", "漢字かな交じり", "é́́", "\u2028\u2029\r\n\t"])
def test_what_is_echoed_is_what_was_sent(client: openai.OpenAI, text: str) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": text, "echo": True, "logprobs": 0}
    whole = client.completions.create(**asked, max_tokens=0).choices[0]
    assert whole.text == text
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, max_tokens=3, stream=True)]
    assert "".join(pieces).startswith(text)


@pytest.mark.parametrize("span", [1, 2, 3])
def test_a_stop_string_inside_tokens_is_cut_and_never_shown(client: openai.OpenAI, span: int) -> None:
    reply = client.chat.completions.create(**GREEDY, logprobs=True)
    text, logprobs = text_of(reply), reply.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    tokens = [entry.token for entry in logprobs.content]
    first = next(at for at in range(6, 20) if all(len(token) > 2 for token in tokens[at : at + span + 1]))
    stop = tokens[first][1:] + "".join(tokens[first + 1 : first + span]) + tokens[first + span][:2]
    before = text[: text.find(stop)]
    assert 0 < len(before) < len(text)
    cut = client.chat.completions.create(**GREEDY, stop=[stop, "never said"])
    assert (text_of(cut), cut.choices[0].finish_reason) == (before, "stop")
    assert cut.usage is not None and cut.usage.completion_tokens == first + span + 1
    shown, reasons = "", []
    for chunk in client.chat.completions.create(**GREEDY, stop=stop, stream=True):
        shown += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)
        assert before.startswith(shown)
    assert (shown, reasons[-1]) == (before, "stop")


def test_a_bias_forces_and_bans_tokens(client: openai.OpenAI, server: Server) -> None:
    (forced,) = ids_of(server, " blue")
    reply = client.chat.completions.create(**{**GREEDY, "max_tokens": 4}, logit_bias={str(forced): 100})
    assert text_of(reply).strip() == "blue blue blue blue"
    plain = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=1, temperature=0)
    (banned,) = ids_of(server, plain.choices[0].text)
    other = client.completions.create(
        model=MODEL, prompt="The sky is", max_tokens=8, temperature=0, logit_bias={str(banned): -100}
    )
    assert banned not in ids_of(server, other.choices[0].text)


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}])
def test_penalties_of_the_standard_change_the_text(client: openai.OpenAI, penalty: dict[str, float]) -> None:
    asked = {**GREEDY, "max_tokens": 48}
    penalised: Any = {**asked, **penalty}
    assert text_of(client.chat.completions.create(**asked)) != text_of(client.chat.completions.create(**penalised))


def test_a_repetition_penalty_changes_the_text(client: openai.OpenAI) -> None:
    plain = text_of(client.chat.completions.create(**GREEDY))
    assert plain != text_of(client.chat.completions.create(**GREEDY, extra_body={"repetition_penalty": 5.0}))


def test_min_tokens_puts_the_end_off(client: openai.OpenAI, server: Server) -> None:
    (end,) = ids_of(server, "<|im_end|>", parse_special=True)
    at_once = client.chat.completions.create(**GREEDY, logit_bias={str(end): 100})
    assert (text_of(at_once), at_once.choices[0].finish_reason) == ("", "stop")
    later = client.chat.completions.create(**GREEDY, logit_bias={str(end): 100}, extra_body={"min_tokens": 5})
    assert text_of(later) and text_of(client.chat.completions.create(**GREEDY)).startswith(text_of(later))
    assert later.usage is not None and later.usage.completion_tokens == 6


def test_both_names_of_the_token_limit(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        limit: Any = {name: 5}
        reply = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0, **limit)
        assert reply.usage is not None and reply.usage.completion_tokens == 5
        assert reply.choices[0].finish_reason == "length"


def test_completions_take_every_kind_of_prompt(client: openai.OpenAI, server: Server) -> None:
    prompts = ["Once upon a time", "The capital of France is"]
    tokens: Any = [server.http.post("/tokenize", json={"prompt": prompt}).json()["tokens"] for prompt in prompts]
    alone = [client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=8) for prompt in prompts]
    texts = [reply.choices[0].text for reply in alone]
    assert all(reply.id.startswith("cmpl-") and reply.object == "text_completion" for reply in alone)
    for prompt in (prompts, tokens):
        reply = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=8)
        assert [choice.text for choice in reply.choices] == texts
        assert [choice.index for choice in reply.choices] == [0, 1]
    single = client.completions.create(model=MODEL, prompt=tokens[0], temperature=0, max_tokens=8)
    assert single.choices[0].text == texts[0]
    chunks = client.completions.create(model=MODEL, prompt=prompts[0], temperature=0, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == texts[0]


def test_echo_scores_the_prompt(client: openai.OpenAI) -> None:
    prompt = "The capital of France is"
    reply = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=3, echo=True, logprobs=2)
    (choice,) = reply.choices
    scores = choice.logprobs
    assert scores is not None and scores.tokens is not None
    assert scores.token_logprobs is not None and scores.text_offset is not None and scores.top_logprobs is not None
    assert choice.text.startswith(prompt)
    assert "".join(scores.tokens) == choice.text
    assert scores.token_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])
    for at, offset in enumerate(scores.text_offset):
        assert choice.text[offset:].startswith(scores.tokens[at])
    read = client.completions.create(model=MODEL, prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    assert read.choices[0].text == prompt
    assert read.choices[0].logprobs is not None
    assert read.choices[0].logprobs.token_logprobs == scores.token_logprobs[:-3]


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == MODEL
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("gpt-4o")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("changes", "kind", "param", "code"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model", "model_not_found"),
        ({"n": 0}, openai.BadRequestError, "n", "invalid_value"),
        ({"temperature": 2.1}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"messages": []}, openai.BadRequestError, "messages", "invalid_value"),
        ({"messages": [{"role": "king", "content": "x"}]}, openai.BadRequestError, "messages[0].role", "invalid_value"),
        ({"top_logprobs": 2}, openai.BadRequestError, "top_logprobs", "invalid_request"),
        ({"logit_bias": {"999999": 1}}, openai.BadRequestError, "logit_bias.999999", "invalid_request"),
        ({"max_tokens": 1_000_000}, openai.BadRequestError, "messages", "context_length_exceeded"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format.type", "invalid_request"),
        ({"functions": [{"name": "f"}]}, openai.BadRequestError, "functions", "unsupported"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_clients_own(
    client: openai.OpenAI,
    changes: dict[str, Any],
    kind: type[openai.APIStatusError],
    param: str,
    code: str,
    stream: bool,
) -> None:
    with pytest.raises(kind) as refused:
        client.chat.completions.create(**{**GREEDY, **changes, "stream": stream})
    error = refused.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert error.request_id is not None and error.request_id.startswith("req_")


def test_a_closed_stream_frees_its_memory(client: openai.OpenAI, server: Server, note: Note) -> None:
    before = server.metrics()["tunechat_engine_aborted_total"]
    stream = client.chat.completions.create(**{**GREEDY, "max_tokens": 2000}, stream=True)
    for _ in range(5):
        next(iter(stream))
    stream.close()
    seconds = server.wait_idle(limit=2)
    note("closed stream to free blocks", f"{seconds * 1000:.0f} ms")
    assert server.metrics()["tunechat_engine_aborted_total"] == before + 1


async def test_asynchronous_answers_side_by_side(asynchronous: openai.AsyncOpenAI, client: openai.OpenAI) -> None:
    async def ask(question: str) -> str:
        asked: Any = {**GREEDY, "messages": [{"role": "user", "content": question}]}
        text = ""
        async for chunk in await asynchronous.chat.completions.create(**asked, stream=True):
            text += chunk.choices[0].delta.content or ""
        return text

    questions = ["Tell me about the sea.", "Count to five.", "What is rust?", "Who are you?"]
    texts = await asyncio.gather(*map(ask, questions))
    assert texts[0] == text_of(client.chat.completions.create(**GREEDY))
    assert len(set(texts)) == 4


async def test_a_cancelled_task_ends_its_request(asynchronous: openai.AsyncOpenAI, server: Server) -> None:
    before = server.metrics()["tunechat_engine_aborted_total"]
    asking = asyncio.create_task(asynchronous.chat.completions.create(**{**GREEDY, "max_tokens": 2000}))
    await asyncio.to_thread(wait_until, lambda: not server.is_idle(), 5, "the request runs")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.to_thread(server.wait_idle, 2)
    await asyncio.to_thread(
        wait_until,
        lambda: server.metrics()["tunechat_engine_aborted_total"] == before + 1,
        2,
        "the request was aborted",
    )
