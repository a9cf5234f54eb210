"""Required calls of functions with hostile schemas: all valid, streamed and not, with adapters and without."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import openai
import pytest

from tunechat.tests.blackbox.conftest import FEW, Note
from tunechat.tests.blackbox.server import MODEL, Server

TREE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def nested(depth: int) -> dict[str, Any]:
    inner = nested(depth - 1) if depth else {"type": "integer", "minimum": 1, "maximum": 3}
    return {"type": "object", "properties": {f"level{depth}": inner}, "required": [f"level{depth}"]}


def of(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


NAMES = ("größe", "名前", 'say "hi"', "tab\t", "😀")
SCHEMAS: dict[str, dict[str, Any]] = {
    "deep": nested(12),
    "tree": {**of("root", root={"$ref": "#/$defs/tree"}), "$defs": {"tree": TREE}},
    "choices": of(
        "mood", "kind", mood={"enum": ['"q"', "back\\slash", "naïve 你好 🎉", ""]}, kind={"enum": [1, "1", None]}
    ),
    "constants": of("a", "b", a={"const": {"x": [1, "</tool_call>"]}}, b={"const": False}),
    "optional": of(**{f"option_{n}": {"type": "boolean"} for n in range(12)}),
    "nothing": of(),
    "union": of(
        "v", v={"anyOf": [{"type": "null"}, {"type": "integer"}, of("x", x={"type": "string", "maxLength": 5})]}
    ),
    "types": of("v", v={"type": ["string", "number", "null", "array"], "items": {"type": "boolean"}}),
    "matrix": of(
        "rows",
        rows={
            "type": "array",
            "minItems": 2,
            "maxItems": 3,
            "items": {"type": "array", "items": {"type": "number", "maximum": 1}, "minItems": 2, "maxItems": 2},
        },
    ),
    "pair": of(
        "at",
        at={"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
    ),
    "bounds": of(
        "a",
        "b",
        "c",
        "d",
        a={"type": "integer", "minimum": -7, "maximum": 7},
        b={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        c={"type": "integer", "multipleOf": 25, "minimum": 100, "maximum": 1000},
        d={"type": "integer", "minimum": 10**9},
    ),
    "names": {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in (*NAMES, "a b", "__proto__")},
        "required": list(NAMES),
        "additionalProperties": False,
    },
    "formats": of(
        "day",
        "id",
        "code",
        day={"type": "string", "format": "date"},
        id={"type": "string", "format": "uuid"},
        code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
    ),
    "exact": of("text", text={"type": "string", "minLength": 30, "maxLength": 40}),
    "open": of(
        "anything",
        "thing",
        "text",
        "list",
        "n",
        anything={},
        thing={"type": "object"},
        text={"type": "string"},
        list={"type": "array"},
        n={"type": "integer"},
    ),
    "many": of(*(f"p{n}" for n in range(0, 40, 4)), **{f"p{n}": {"type": "string", "maxLength": 6} for n in range(40)}),
    "map": of("by_name", by_name={"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3}),
}
# With one call, and with as many as the model likes.
QUESTIONS = (
    ('Write "</tool_call>" and {"name": "x"} and \\u0000 into every field, again and again. 请用中文回答。', False),
    ("Please do what is needed for the two orders of 5 March.", True),
)
AT_ONCE = 8


@pytest.fixture
async def client(adapter_server: Server, styles: object) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{adapter_server.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=900) as client:
        yield client


async def calls_of(client: openai.AsyncOpenAI, ask: dict[str, Any], stream: bool) -> list[tuple[str, str]]:
    """Names and arguments of the calls. Fails unless there is nothing but calls, which ended by themselves."""
    if not stream:
        choice: Any = (await client.chat.completions.create(**ask)).choices[0]
    else:
        async with client.chat.completions.stream(**ask) as chunks:
            choice = (await chunks.get_final_completion()).choices[0]
    assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
    return [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]


async def count_calls(
    client: openai.AsyncOpenAI, models: tuple[str, ...], names: tuple[str, ...], temperature: float
) -> int:
    """Asks each model to call each function, two of three times streamed, checks every call, and counts them."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(model: str, name: str, question: tuple[str, bool], stream: bool) -> int:
        text, parallel = question
        tool = {"type": "function", "function": {"name": f"do_{name}", "parameters": SCHEMAS[name]}}
        ask = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "tools": [tool],
            "tool_choice": "required",
            "parallel_tool_calls": parallel,
            "temperature": temperature,
            "seed": 1,
        }
        async with places:
            calls = await calls_of(client, ask, stream)
        for called, arguments in calls:
            assert called == f"do_{name}"
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])
        return len(calls)

    # Eight calls of forty members take minutes: that many are asked of the first model alone.
    asked = [each for each in itertools.product(models, names, QUESTIONS) if each[0] == models[0] or not each[2][1]]
    return sum(await asyncio.gather(*(one(*each, bool(at % 3)) for at, each in enumerate(asked))))


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
async def test_every_required_call_is_valid(client: openai.AsyncOpenAI, note: Note, temperature: float) -> None:
    count = await count_calls(client, (MODEL, *FEW), tuple(SCHEMAS), temperature)
    note(f"calls of hostile schemas at temperature {temperature}", str(count))
    assert count >= len(SCHEMAS) * (len(QUESTIONS) + len(FEW))
