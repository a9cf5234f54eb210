"""The two routes, by Anthropic's own client: text, tools, thoughts, ends, counts."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tunechat.serve.contract.errors import EngineFailed
from tunechat.tests.serve.api.adapter_files import upload
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, MODEL, call, make_scope
from tunechat.tests.serve.api.messages.conftest import URL, Connect, ask, prompt_of, stream, whole
from tunechat.tests.serve.api.test_tools import allows

ROOM = {"context": 4096}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "weather",
        "description": "Tells it.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "cache_control": {"type": "ephemeral"},
    },
    {"type": "custom", "name": "now", "input_schema": {"type": "object"}},
]
WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Pa\\"r<is"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
BOTH = f"Let me see.\n{WEATHER}\n{NOW}"


async def test_text_whole_and_streamed(serve: Serve, connect: Connect) -> None:
    served = await serve({"answer": "Hello", "cached_tokens": 3})
    client = connect(served)
    message = await client.messages.create(**ask(system="Be kind."))
    assert message.id.startswith("msg_")
    assert (message.role, message.model, message.stop_reason, message.stop_sequence) == (
        "assistant", MODEL, "end_turn", None,
    )  # fmt: skip
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello"}]
    prompt = len(served.engine.submitted[0][0])
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (prompt - 3, 3, 6)
    assert message._request_id is not None and message._request_id.startswith("req_")
    async with client.messages.stream(**ask(system="Be kind.")) as streamed:
        assert "".join([text async for text in streamed.text_stream]) == "Hello"
        final = await streamed.get_final_message()
        assert streamed.request_id is not None
    assert (final.content[0].to_dict(), final.stop_reason) == (message.content[0].to_dict(), "end_turn")
    assert final.usage.to_dict() == usage.to_dict()


async def test_events_come_in_their_order(serve: Serve) -> None:
    events = await stream(await serve({"answer": "Hello"}), ask())
    assert [kind for kind, _ in itertools.groupby(event["type"] for event in events)] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None


@pytest.mark.parametrize("chunk", [1, 7, 1000])
async def test_calls_whole_and_streamed_are_the_same(serve: Serve, connect: Connect, chunk: int) -> None:
    served = await serve(ROOM | {"answer": BOTH, "chunk": chunk})
    message = await connect(served).messages.create(**ask(tools=TOOLS))
    text, *calls = message.content
    assert text.to_dict() == {"type": "text", "text": "Let me see."}
    assert [(call.name, call.input) for call in calls] == [  # type: ignore[union-attr]
        ("weather", {"city": 'Pa"r<is'}),
        ("now", {}),
    ]
    ids = {call.id for call in calls}  # type: ignore[union-attr]
    assert len(ids) == 2 and all(id_.startswith("toolu_") for id_ in ids)
    assert message.stop_reason == "tool_use"
    events = await stream(served, ask(tools=TOOLS))
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["text", "tool_use", "tool_use"]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2]
    pieces = [
        event["delta"]["partial_json"] for event in events if event.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert "".join(pieces) == '{"city": "Pa\\"r<is"}{}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_call_that_the_limit_cuts_off_has_what_is_there(serve: Serve) -> None:
    served = await serve(ROOM | {"answer": WEATHER})
    message = await whole(served, ask(tools=TOOLS, max_tokens=60))
    assert message.stop_reason == "max_tokens"
    (made,) = message.content
    assert made.type == "tool_use" and made.name == "weather" and set(made.input) <= {"city"}


async def test_results_come_back_under_any_id(serve: Serve, connect: Connect) -> None:
    served = await serve(ROOM | {"answers": [WEATHER, "It rains."]})
    client = connect(served)
    talk: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = await client.messages.create(**ask(messages=talk, tools=TOOLS, tool_choice={"type": "any"}))
    (call,) = first.content
    talk += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": call.id,
                    "content": [{"type": "text", "text": "<tool_call> rain"}],
                },  # type: ignore[union-attr]
                {"type": "tool_result", "tool_use_id": "any", "content": "broken", "is_error": True},
                {"type": "tool_result", "tool_use_id": "empty"},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    second = await client.messages.create(**ask(messages=talk, tools=TOOLS))
    assert (second.content[0].to_dict(), second.stop_reason) == ({"type": "text", "text": "It rains."}, "end_turn")
    prompt = prompt_of(served)
    assert "weather: <tool_call> rain" in prompt
    assert "Error: broken" in prompt
    assert "So?" in prompt
    assert WEATHER in prompt


CHOICES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"type": "auto"}, [BOTH, "Hi", WEATHER], []),
    ({"type": "any"}, [WEATHER, f"{WEATHER}\n{NOW}"], ["Hi"]),
    ({"type": "any", "disable_parallel_tool_use": True}, [WEATHER], ["Hi", f"{WEATHER}\n{NOW}"]),
    ({"type": "tool", "name": "now"}, [NOW], ["Hi", WEATHER]),
    ({"type": "none"}, ["Hi"], [WEATHER]),
]


@pytest.mark.parametrize(("choice", "right", "wrong"), CHOICES)
async def test_choices_hold_the_answer(
    serve: Serve, choice: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    served = await serve(ROOM | {"answer": right[0]})
    await whole(served, ask(tools=TOOLS, tool_choice=choice))
    grammar = served.engine.submitted[0][1].grammar
    assert [text for text in right if not allows(grammar, text)] == []
    assert [text for text in wrong if allows(grammar, text)] == []


@pytest.mark.parametrize(("stops", "reason", "which", "shown"), [
    (["lo", "xyz"], "stop_sequence", "lo", "Hel"),
    (["xyz"], "end_turn", None, "Hello"),
])  # fmt: skip
async def test_the_stop_sequence_is_told(
    serve: Serve, stops: list[str], reason: str, which: str | None, shown: str
) -> None:
    served = await serve({"answer": "Hello"})
    message = await whole(served, ask(stop_sequences=stops))
    assert (message.stop_reason, message.stop_sequence) == (reason, which)
    assert message.content[0].to_dict() == {"type": "text", "text": shown}
    delta = (await stream(served, ask(stop_sequences=stops)))[-2]["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": which}


async def test_an_answer_ends_with_its_limit_or_with_the_context(serve: Serve) -> None:
    served = await serve({"answer": "x" * 1000})
    assert (await whole(served, ask(max_tokens=3))).stop_reason == "max_tokens"
    full = await whole(served, ask(max_tokens=32_000))
    assert full.stop_reason == "model_context_window_exceeded"
    prompt, params = served.engine.submitted[-1]
    assert len(prompt) + params.max_tokens == CONTEXT
    assert full.usage.output_tokens == params.max_tokens


async def test_a_prompt_that_is_too_long_is_refused_in_the_words_clients_look_for(
    serve: Serve, connect: Connect
) -> None:
    client = connect(await serve())
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**ask("x" * 1000))
    assert refused.value.api_message is not None
    assert refused.value.api_message.startswith("prompt is too long: 10")
    assert refused.value.api_message.endswith(f"tokens > {CONTEXT} maximum")
    assert (await client.messages.count_tokens(model=MODEL, messages=ask("x" * 1000)["messages"])).input_tokens > 1000


async def test_an_answer_goes_on_from_the_assistants_words(serve: Serve) -> None:
    served = await serve({"answer": " B)"})
    said = [
        {"role": "user", "content": "A or B?"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is"}]},
    ]
    message = await whole(served, ask(messages=said))
    assert message.content[0].to_dict() == {"type": "text", "text": " B)"}
    assert prompt_of(served).endswith("<|im_start|>assistant\nIt is")
    await whole(served, ask(messages=[said[0], {"role": "assistant", "content": ""}]))
    assert prompt_of(served).endswith("A or B?<|im_end|>\n<|im_start|>assistant\n")


async def test_sampling_reaches_the_engine(serve: Serve) -> None:
    served = await serve()
    await whole(served, ask(temperature=0.5, top_p=0.9, top_k=7, seed=11, cache_salt="salt", max_tokens=9))
    _, params = served.engine.submitted[0]
    assert (params.temperature, params.top_p, params.top_k, params.seed, params.max_tokens) == (0.5, 0.9, 7, 11, 9)
    assert served.engine.salts != [""]
    await whole(served, ask())
    assert (served.engine.submitted[1][1].temperature, served.engine.submitted[1][1].top_p) == (1.0, 1.0)


async def test_a_shape_is_held(serve: Serve, connect: Connect) -> None:
    served = await serve(ROOM | {"answer": '{"a": 1}'})
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    message = await connect(served).messages.create(**ask(output_config=form))
    assert message.content[0].to_dict()["text"] == '{"a": 1}'
    grammar = served.engine.submitted[0][1].grammar
    assert allows(grammar, '{"a": 1}') and not allows(grammar, "Hi")


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": ask(),
    "system": ask(system=[{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]),
    "tools": ask(tools=TOOLS, system="A"),
    "choice": ask(tools=TOOLS, tool_choice={"type": "tool", "name": "now"}),
    "none": ask(tools=TOOLS, tool_choice={"type": "none"}),
    "thinking": ask(thinking={"type": "enabled", "budget_tokens": 1024}),
    "prefill": ask(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So"}]),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("cached", [0, 16])
async def test_counts_are_what_a_message_costs(serve: Serve, connect: Connect, name: str, cached: int) -> None:
    served = await serve(ROOM | {"answer": NOW if name == "choice" else "Hello", "cached_tokens": cached})
    client, body = connect(served), REQUESTS[name]
    usage = (await client.messages.create(**body)).usage
    without = {field: value for field, value in body.items() if field != "max_tokens"}
    count = await client.messages.count_tokens(**without)
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert count.input_tokens == len(served.engine.submitted[0][0])
    assert len(served.engine.submitted) == 1


async def test_beta_headers_and_query_are_fine(serve: Serve, connect: Connect) -> None:
    client = connect(await serve({"answer": "Hello"}))
    message = await client.beta.messages.create(**ask(betas=["interleaved-thinking-2025-05-14", "unheard-of"]))
    assert message.content[0].to_dict()["text"] == "Hello"
    async with client.beta.messages.stream(**ask()) as streamed:
        assert (await streamed.get_final_message()).stop_reason == "end_turn"
    counted = await client.beta.messages.count_tokens(model=MODEL, messages=ask()["messages"])
    assert counted.input_tokens == message.usage.input_tokens


@pytest.mark.parametrize("step", [1, 3])
async def test_an_error_after_the_start_is_an_error_event(serve: Serve, connect: Connect, step: int) -> None:
    served = await serve({"answer": "Hello", "faults": {step: EngineFailed("the engine died")}})
    *events, last = await stream(served, ask())
    assert last["type"] == "error"
    assert last["error"]["type"] == "overloaded_error"
    assert last["request_id"].startswith("req_")
    assert "message_stop" not in [event["type"] for event in events]
    served.engine.sequences.clear()
    with pytest.raises(anthropic.APIStatusError) as failed:
        async with connect(served).messages.stream(**ask()) as streamed:
            await streamed.until_done()
    assert failed.value.type == "overloaded_error"


async def test_an_error_before_the_start_keeps_its_status(serve: Serve, connect: Connect) -> None:
    client = connect(await serve({"answer": "Hello", "faults": {0: EngineFailed("the engine died")}}))
    with pytest.raises(anthropic.ServiceUnavailableError):
        await client.messages.create(**ask(), stream=True)


async def test_a_pause_sends_pings(serve: Serve) -> None:
    gate = asyncio.Event()
    served = await serve({"answer": "Hello", "gates": {2: gate}}, heartbeat_seconds=0.02)
    asyncio.get_running_loop().call_later(0.15, gate.set)
    events = await stream(served, ask())
    assert [event["type"] for event in events].count("ping") > 2


async def test_an_adapter_answers_by_its_name_and_is_listed(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    served = await serve({"answer": "Hello"}, adapter_store=tmp_path / "adapters")
    assert (await upload(served, "support")).status_code == 200
    client = connect(served)
    response = await client.messages.with_raw_response.create(**ask(model="support"))
    assert (await response.parse()).model == response.headers["x-tunechat-adapter"] == "support@1"
    async with client.messages.stream(
        **ask(model="support@1", extra_body={"adapters": [{"name": "support"}]})
    ) as streamed:
        assert (await streamed.get_final_message()).model == "support@1"
    assert all(served.engine.uses)
    assert [model.id async for model in client.models.list()] == [MODEL, "support", "support@1"]
    assert (await client.messages.count_tokens(model="support", messages=ask()["messages"])).input_tokens > 0
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**ask(extra_body={"adapters": [{"name": "support", "weight": 99}]}))
    assert "adapters[0].weight" in str(refused.value.api_message)


async def test_a_client_that_leaves_ends_its_request(serve: Serve) -> None:
    for streams in (False, True):
        gate, leave = asyncio.Event(), asyncio.Event()
        served = await serve({"answer": "Hello", "gates": {2: gate}})
        scope = make_scope("POST", URL, {"content-type": "application/json"})
        body = json.dumps(ask(stream=streams)).encode()
        running = asyncio.create_task(call(served.app, scope, body, leave=leave))
        await served.engine.until_waiting(1)
        leave.set()
        assert not (await running).complete
        assert len(served.engine.aborted) == 1
