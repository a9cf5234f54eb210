"""Tool calls and shaped text from the default model, whose template knows no tools, by the official client."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import openai
import pydantic
import pytest

from tunechat.tests.blackbox.server import MODEL, Server

pytestmark = pytest.mark.usefixtures("healthy_at_end")

QUESTIONS = (
    "What is the weather in Paris?",
    "Add 17 and 25.",
    "Tell me a joke.",
    'Say "<tool_call>" and \\ and {"name": "add"}.',
    "",
)
SCHEMAS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": -1000, "maximum": 1000},
            "b": {"type": "integer", "minimum": -1000, "maximum": 1000},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": schema, "strict": name == "add"}}
    for name, schema in SCHEMAS.items()
]
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 200, "tools": TOOLS, "parallel_tool_calls": False}


def asked(question: str) -> Any:
    return [{"role": "user", "content": question}]


def check_call(call: Any) -> str:
    """The name of a call that is one of the tools, with arguments of its schema."""
    assert call.type == "function"
    assert call.id.startswith("call_")
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return str(call.function.name)


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("question", QUESTIONS)
def test_required_is_always_a_valid_call(client: openai.OpenAI, question: str, temperature: float) -> None:
    reply = client.chat.completions.create(
        **ASK, messages=asked(question), tool_choice="required", temperature=temperature, n=3, seed=1
    )
    for choice in reply.choices:
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls or []
        check_call(call)
    assert len({choice.message.tool_calls[0].id for choice in reply.choices if choice.message.tool_calls}) == 3


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_function_is_called(client: openai.OpenAI, name: str) -> None:
    choice: Any = {"type": "function", "function": {"name": name}}
    for question in QUESTIONS:
        reply = client.chat.completions.create(**ASK, messages=asked(question), tool_choice=choice)
        (call,) = reply.choices[0].message.tool_calls or []
        assert check_call(call) == name


def test_a_stream_is_the_same_call(client: openai.OpenAI) -> None:
    ask = {**ASK, "messages": asked(QUESTIONS[0]), "tool_choice": "required", "temperature": 0}
    whole = client.chat.completions.create(**ask).choices[0]
    with client.chat.completions.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    assert any(event.type == "tool_calls.function.arguments.delta" for event in events)
    assert not any(event.delta for event in events if event.type == "content.delta")
    (one,), (other,) = whole.message.tool_calls or [], final.message.tool_calls or []
    assert (one.function.name, one.function.arguments) == (other.function.name, other.function.arguments)
    assert final.finish_reason == "tool_calls"


@pytest.mark.parametrize("question", QUESTIONS)
def test_auto_streams_text_or_valid_calls(client: openai.OpenAI, question: str) -> None:
    ask = {**ASK, "messages": asked(question), "tool_choice": "auto", "temperature": 1, "seed": 7, "max_tokens": 60}
    text, arguments, reason = "", "", None
    for chunk in client.chat.completions.create(**ask, stream=True):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        arguments += "".join(call.function.arguments for call in choice.delta.tool_calls or ())
        reason = choice.finish_reason
    assert "<tool_call>" not in text
    assert reason in ("stop", "length", "tool_calls")
    assert bool(arguments) == (reason == "tool_calls") or reason == "length"
    assert text or arguments


def test_a_result_is_answered(client: openai.OpenAI) -> None:
    talk = asked(QUESTIONS[0])
    called = client.chat.completions.create(**ask_for(talk, tool_choice="required")).choices[0].message
    assert called.tool_calls
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "18 degrees and sunny"}
    reply = client.chat.completions.create(**ask_for([*talk, called, result], tool_choice="none", max_tokens=40))
    assert reply.choices[0].message.content
    assert not reply.choices[0].message.tool_calls


def ask_for(messages: Any, **changes: Any) -> dict[str, Any]:
    return {**ASK, "messages": messages, "temperature": 0, **changes}


class City(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(max_length=30)
    population: int = pydantic.Field(ge=0, le=100_000_000)
    climate: Literal["warm", "mild", "cold"]


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_the_parse_helper_gets_its_model(client: openai.OpenAI, temperature: float) -> None:
    reply = client.chat.completions.parse(
        model=MODEL, messages=asked("Describe Paris."), response_format=City, temperature=temperature, max_tokens=300
    )
    assert isinstance(reply.choices[0].message.parsed, City)
    assert reply.choices[0].finish_reason == "stop"


def test_the_stream_helper_gets_its_model(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=asked("Describe Oslo."), response_format=City, temperature=0, max_tokens=300
    ) as stream:
        for _ in stream:
            continue
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("shape", "texts"),
    [
        ({"structured_outputs": {"choice": ["yes", "no"]}}, {"yes", "no"}),
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"structured_outputs": {"regex": "(a|b)c"}}, {"ac", "bc"}),
        ({"guided_grammar": 'root ::= "x" | "y"'}, {"x", "y"}),
    ],
)
def test_shapes_of_vllms_clients(client: openai.OpenAI, shape: Any, texts: set[str]) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=asked("Well?"), max_tokens=20, extra_body=shape)
    assert reply.choices[0].message.content in texts
    plain = client.completions.create(model=MODEL, prompt="Well?", max_tokens=20, extra_body=shape)
    assert plain.choices[0].text in texts


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_cannot_be_used_is_refused(client: openai.OpenAI, stream: bool) -> None:
    shape = {"structured_outputs": {"grammar": "start: nothing"}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=asked("Well?"), extra_body=shape, stream=stream)
    assert (refused.value.param, refused.value.code) == ("structured_outputs", "invalid_grammar")


def test_calls_and_text_at_once_do_not_disturb_one_another(client: openai.OpenAI, server: Server) -> None:
    control = server.control()
    reply = client.chat.completions.create(**ask_for(asked(QUESTIONS[1]), tool_choice="required", n=4, temperature=1))
    assert {check_call(call) for choice in reply.choices for call in choice.message.tool_calls or []} <= set(SCHEMAS)
    assert server.control() == control
