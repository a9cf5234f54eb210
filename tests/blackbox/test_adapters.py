"""Adapters on a real server: many at once, swapped while streams run, and never the wrong weights."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from safetensors.numpy import load_file, save_file

from tunechat.tests.adapter_styles import STYLES, style_adapters
from tunechat.tests.blackbox.conftest import FEW, Note
from tunechat.tests.blackbox.server import MODEL, Server, load_adapter, wait_until
from tunechat.tests.blackbox.streams import ENDLESS, Stream

QUESTIONS = (
    "What is the capital of France?",
    "Tell me about the moon.",
    "How do I boil an egg?",
    "Who are you?",
    "Write a sentence about dogs.",
)
OPENING = "The keeper of the lighthouse wrote in his book every evening, and this is what he wrote: " * 2
Alter = Callable[[str, float], Path]


@pytest.fixture
def alter(styles: dict[str, Path], tmp_path: Path) -> Alter:
    """Copies of a trained adapter with every delta multiplied: other bytes, other answers."""

    def make(name: str, factor: float) -> Path:
        target = Path(shutil.copytree(styles[name], tmp_path / f"{name}-{factor}"))
        weights = target / "adapter_model.safetensors"
        tensors = load_file(weights)
        save_file({key: value * factor if "lora_B" in key else value for key, value in tensors.items()}, weights)
        return target

    return make


@pytest.fixture
async def client(adapter_server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{adapter_server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def unload(server: Server, name: str) -> None:
    response = server.http.post("/v1/unload_lora_adapter", json={"lora_name": name})
    assert response.status_code == 200, response.text


def version(server: Server, name: str) -> dict[str, Any]:
    response = server.http.get(f"/v1/adapters/{name}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def ask(server: Server, model: str, prompt: str = OPENING, **changes: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 10, **changes}
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def text_of(reply: dict[str, Any]) -> str:
    return str(reply["choices"][0]["text"])


def question(model: str, text: str, **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 12,
    } | changes


async def check_together(client: openai.AsyncOpenAI, names: tuple[str, ...]) -> None:
    """The base, every adapter and one composition: asked at once, each answers as it does alone."""
    mixture = {"adapters": [{"name": names[0], "weight": 0.7}, {"name": names[1], "weight": 0.5}]}
    asked = [question(model, text) for text in QUESTIONS for model in (MODEL, *names)]
    asked += [question(names[0], text, extra_body=mixture) for text in QUESTIONS]
    alone = [await client.chat.completions.create(**one) for one in asked]
    together = await asyncio.gather(*(client.chat.completions.create(**one) for one in asked * 2))
    texts = [reply.choices[0].message.content for reply in alone]
    assert [reply.choices[0].message.content for reply in together] == texts * 2
    assert [reply.model for reply in together] == [reply.model for reply in alone] * 2
    whole = len(names) + 1
    for at, name in enumerate(names, 1):
        replies = alone[at : whole * len(QUESTIONS) : whole]
        assert {reply.model for reply in replies} == {f"{name}@1"}
        assert len({reply.system_fingerprint for reply in replies} - {alone[0].system_fingerprint}) == 1
        usual = texts[0 : whole * len(QUESTIONS) : whole]
        differing = [reply.choices[0].message.content != base for reply, base in zip(replies, usual, strict=True)]
        assert sum(differing) >= 0.8 * len(QUESTIONS)
    assert {reply.model for reply in alone[-len(QUESTIONS) :]} == {f"{names[0]}@1*0.7+{names[1]}@1*0.5"}


async def test_adapters_and_the_base_answer_at_once_as_alone(
    client: openai.AsyncOpenAI, adapter_server: Server, styles: dict[str, Path]
) -> None:
    models = [model.id async for model in client.models.list()]
    assert models[0] == MODEL
    assert {"loud", "loud@1", "json", "json@1"} <= set(models)
    await check_together(client, FEW)
    loud = await client.chat.completions.create(**question("loud", QUESTIONS[0]))
    assert loud.choices[0].message.content is not None and loud.choices[0].message.content.isupper()


async def test_adapters_make_valid_calls_beside_one_another(
    client: openai.AsyncOpenAI, styles: dict[str, Path]
) -> None:
    number = {"type": "integer", "minimum": 0, "maximum": 99}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": schema, "strict": True}}]
    told: Any = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    asked = [question(model, text, **told) for text in QUESTIONS for model in (MODEL, *FEW)]
    replies = await asyncio.gather(*(client.chat.completions.create(**one) for one in asked))
    for reply in replies:
        (call,) = reply.choices[0].message.tool_calls or []
        assert reply.choices[0].finish_reason == "tool_calls"
        arguments = json.loads(call.function.arguments)
        assert (call.function.name, sorted(arguments)) == ("add", ["a", "b"])
        assert all(type(value) is int and 0 <= value <= 99 for value in arguments.values())


@pytest.mark.acceptance
@pytest.mark.timeout(900)
async def test_five_adapters_and_the_base_answer_at_once_as_alone(
    client: openai.AsyncOpenAI,
    adapter_server: Server,
    styles: dict[str, Path],
    default_home: Path,
    default_entry: Path,
) -> None:
    for name, folder in style_adapters(default_home, default_entry).items():
        if name not in styles:
            load_adapter(adapter_server, name, folder)
    await check_together(client, tuple(STYLES))


def test_a_running_stream_keeps_the_version_it_began_with(adapter_server: Server, alter: Alter) -> None:
    server = adapter_server
    first, other = load_adapter(server, "moving", alter("loud", 0.9)), alter("json", 0.9)
    asked = {**ENDLESS, "model": "moving", "cache_salt": "moving"}
    with Stream(server, {**asked, "max_tokens": 400}) as quiet:
        quiet.read_to_end()
    # Longer than a load takes that makes way for it, on any machine.
    with Stream(server, {**asked, "max_tokens": 4000}) as stream:
        stream.read_until(b'"text"')
        second = load_adapter(server, "moving", other, load_inplace=True)
        assert version(server, first)["requests"] == 1
        fresh = ask(server, "moving")
        assert (first, second, fresh["model"]) == ("moving@1", "moving@2", second)
        assert server.http.post("/v1/adapters/moving/rollback").json()["id"] == first
        back = ask(server, "moving")
        assert back["model"] == first and text_of(back) != text_of(fresh)
        assert version(server, first)["requests"] == 1
        while stream.seen.count(b'"text"') < 400:
            stream.read_some()
    seen = stream.whole_events
    assert {chunk["model"] for chunk in seen} == {first}
    same, told = written(chunks_of(quiet)), written(seen)
    assert len(told) > 100 and (told.startswith(same) or same.startswith(told))
    assert text_of(ask(server, second)) == text_of(fresh)


def test_unloading_answers_404_at_once_and_lets_streams_finish(adapter_server: Server, alter: Alter) -> None:
    server = adapter_server
    load_adapter(server, "leaving", alter("json", 0.8))
    asked = {**ENDLESS, "model": "leaving", "max_tokens": 250}
    with Stream(server, asked) as quiet:
        quiet.read_to_end()
    with Stream(server, asked) as stream:
        stream.read_until(b'"text"')
        unload(server, "leaving")
        refused = server.http.post("/v1/completions", json={"model": "leaving", "prompt": "Hello"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert server.http.post("/v1/unload_lora_adapter", json={"lora_name": "leaving"}).status_code == 404
        stream.read_to_end()
    assert not stream.errors
    assert written(chunks_of(stream)) == written(chunks_of(quiet))
    wait_until(lambda: version(server, "leaving@1")["residency"] == "disk", 10, "its memory is free")
    assert version(server, "leaving@1")["memory_bytes"] == 0
    assert server.http.post("/v1/adapters/leaving/load").json()["id"] == "leaving@1"
    assert ask(server, "leaving")["model"] == "leaving@1"


def chunks_of(stream: Stream) -> list[dict[str, Any]]:
    return [json.loads(event) for event in stream.events if event != b"[DONE]"]


def written(chunks: list[dict[str, Any]]) -> str:
    """The text of a stream. How it is cut into chunks depends on how fast they are sent."""
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


def test_an_adapter_that_is_refused_changes_nothing(
    adapter_server: Server, styles: dict[str, Path], tmp_path: Path
) -> None:
    before = text_of(ask(adapter_server, "loud"))
    bad = Path(shutil.copytree(styles["loud"], tmp_path / "bad"))
    weights = bad / "adapter_model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).flat[0] = float("nan")
    save_file(tensors, weights)
    body = {"lora_name": "loud", "lora_path": str(bad), "load_inplace": True}
    refused = adapter_server.http.post("/v1/load_lora_adapter", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_adapter")
    after = ask(adapter_server, "loud")
    assert (after["model"], text_of(after)) == ("loud@1", before)


@pytest.mark.parametrize("rounds", [16, pytest.param(200, marks=[pytest.mark.acceptance, pytest.mark.timeout(900)])])
def test_no_answer_ever_comes_from_the_cache_of_other_weights(
    adapter_server: Server, alter: Alter, note: Note, rounds: int
) -> None:
    """Reliability row R47: base, A, B and A with new bytes, interleaved; each as it is without any cache."""
    server, chance = adapter_server, random.Random(47)
    contents = [alter(name, factor) for name in FEW for factor in (0.6, 0.8, 1.4)]
    name = f"swapped{rounds}"
    load_adapter(server, name, contents[0])
    mixture = [{"name": name, "weight": 0.6}, {"name": "json", "weight": 0.4}]
    prompts = [OPENING + ending for ending in ("The wind", "A ship", "Nothing")]
    seen: list[tuple[str, str, str, int]] = []

    def one(kind: str) -> None:
        prompt = chance.choice(prompts)
        changes = {"adapters": mixture} if kind == "composition" else {}
        reply = ask(server, name if changes else kind, prompt, **changes)
        seen.append((prompt, reply["model"], text_of(reply), reply["usage"]["prompt_tokens_details"]["cached_tokens"]))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(rounds):
            kinds = chance.choices([MODEL, name, name, "json", "composition"], k=chance.randint(1, 4))
            running = [pool.submit(one, kind) for kind in kinds]
            if chance.random() < 0.5:
                load_adapter(server, name, chance.choice(contents), load_inplace=True)
            for future in running:
                future.result()
    expected: dict[tuple[str, str], str] = {}
    for prompt, model, text, _ in seen:
        if (prompt, model) not in expected:
            cold = ask(server, **cold_request(model, prompt, salt=f"cold-{len(expected)}-{rounds}"))
            assert (cold["model"], cold["usage"]["prompt_tokens_details"]["cached_tokens"]) == (model, 0)
            expected[prompt, model] = text_of(cold)
        assert text == expected[prompt, model]
    hits = sum(cached > 0 for *_, cached in seen)
    models = {model for _, model, _, _ in seen}
    note(f"{len(seen)} requests to {len(models)} weights in {rounds} interleavings", f"{hits} hit the prefix cache")
    assert hits > len(seen) // 4
    assert len(set(expected.values())) > len(expected) // 2


def cold_request(model: str, prompt: str, salt: str) -> dict[str, Any]:
    """The request for exactly the weights that a reply named, in a cache of its own."""
    parts = [part.partition("*") for part in model.split("+")]
    adapters = [{"name": version_id, "weight": float(weight)} for version_id, star, weight in parts if star]
    asked: dict[str, Any] = {"model": parts[0][0], "prompt": prompt, "cache_salt": salt}
    return {**asked, "adapters": adapters} if adapters else asked


@pytest.mark.parametrize(
    ("loads", "tokens"),
    [(4, 24), pytest.param(50, 120, marks=[pytest.mark.acceptance, pytest.mark.timeout(900)])],
)
def test_loading_and_unloading_disturbs_no_stream(
    adapter_server: Server, alter: Alter, note: Note, loads: int, tokens: int
) -> None:
    """Reliability row R58: twenty streams write what they write when it is quiet."""
    server = adapter_server
    folders = [alter(name, factor) for name in FEW for factor in (0.5, 0.7, 1.2)]
    models = [MODEL, "loud", "json", "loud"] * 5
    asked = [
        {**ENDLESS, "model": model, "prompt": f"{OPENING} {at}", "max_tokens": tokens}
        for at, model in enumerate(models)
    ]

    def one(body: dict[str, Any]) -> str:
        with Stream(server, body) as stream:
            stream.read_to_end()
        assert stream.status == 200 and not stream.errors, stream.seen[-500:]
        assert stream.events[-1] == b"[DONE]"
        return written(chunks_of(stream))

    def swap() -> None:
        try:
            for at in range(loads):
                load_adapter(server, f"passing{at % 5}", folders[at % len(folders)])
                if at % 3 == 0:
                    ask(server, f"passing{at % 5}", max_tokens=2)
                unload(server, f"passing{at % 5}")
        finally:
            done.set()

    with ThreadPoolExecutor(21) as pool:
        quiet = list(pool.map(one, asked))
        assert len(set(quiet)) > len(quiet) // 2
        done, rounds = threading.Event(), 0
        swapping = pool.submit(swap)
        while not done.is_set() or rounds == 0:
            assert list(pool.map(one, asked)) == quiet
            rounds += 1
        swapping.result()
    note(
        f"{loads} loads and unloads beside 20 streams of {tokens} tokens", f"{rounds} rounds of streams, none disturbed"
    )


def test_a_new_engine_serves_the_same_adapters(adapter_server: Server, styles: dict[str, Path]) -> None:
    server = adapter_server
    assert server.http.post("/v1/adapters/loud/pin").status_code == 200
    before = {model: ask(server, model) for model in (MODEL, "loud", "json")}
    server.engine.kill()
    wait_until(lambda: not server.is_ready, 5, "/readyz is red", pause=0.001)
    wait_until(lambda: server.is_ready, 60, "/readyz is green again")
    for model, reply in before.items():
        again = ask(server, model)
        assert (again["model"], text_of(again)) == (reply["model"], text_of(reply))
    wait_until(lambda: version(server, "loud@1")["residency"] == "device", 10, "the pinned one is on the device")
    assert version(server, "loud@1")["is_pinned"]
    assert server.http.post("/v1/adapters/loud/unpin").status_code == 200


def test_langchain_takes_an_adapter_for_a_model(adapter_server: Server, styles: dict[str, Path]) -> None:
    made: dict[str, Any] = {"base_url": f"{adapter_server.url}/v1", "api_key": "any"}
    model = ChatOpenAI(model="loud", temperature=0, max_completion_tokens=12, max_retries=0, **made)
    whole = model.invoke(QUESTIONS[0])
    assert whole.response_metadata["model_name"] == "loud@1"
    assert whole.text.isupper()
    total = None
    for chunk in model.stream(QUESTIONS[0]):
        total = chunk if total is None else total + chunk
    assert total is not None and total.text == whole.text


def test_metrics_tell_adapters_apart(adapter_server: Server, alter: Alter) -> None:
    server = adapter_server
    load_adapter(server, "counted", alter("loud", 0.95))
    ask(server, "counted", max_tokens=5, logit_bias={"0": -100, "2": -100})
    requests = 'tunechat_adapter_requests_total{adapter="counted@1"}'
    tokens = 'tunechat_adapter_tokens_total{adapter="counted@1",kind="completion"}'
    wait_until(lambda: server.metrics().get(requests) == 1, 5, "the request is counted")
    assert server.metrics()[tokens] == 5


def test_an_unknown_adapter_is_looked_up_nowhere(adapter_server: Server, styles: dict[str, Path]) -> None:
    for name in ("nobody", "loud@99", "../loud", "/etc", "meta-llama/Llama-3"):
        response = adapter_server.http.post("/v1/completions", json={"model": name, "prompt": "Hello"})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found"), name
