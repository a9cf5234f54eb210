"""What becomes of `tool_choice: "required"`: rows of the Berkeley Function Calling Leaderboard, asked of a real server.

    pip download --no-deps bfcl-eval
    python benchmarks/function_calling.py bfcl_eval-*.whl [--rows 200] [--out docs/performance.md]

A reply is well formed when it has calls and nothing else, ended by itself, and every call names a function of its row
with arguments that are JSON of that function's schema: json.loads and jsonschema decide. It is right when a checker of
names and values says so; how often it is depends on the model alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema

sys.path.insert(0, str(Path(__file__).parent))

from bfcl import CATEGORIES, Row, has_right_names, is_right, read_rows
from machine import describe
from section import replace_section
from servers import running, tunechat_server

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a row. `fault` says why it is not well formed, None where it is."""

    row: Row
    calls: list[tuple[str, dict[str, Any]]]
    fault: str | None
    tokens: int

    @property
    def has_right_names(self) -> bool:
        return has_right_names(self.row, [name for name, _ in self.calls])

    @property
    def is_right(self) -> bool:
        return self.fault is None and is_right(self.row, self.calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the wheel of bfcl-eval, or its data folder")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--concurrent", type=int, default=8, help="requests at a time")
    parser.add_argument("--max-tokens", type=int, help="of an answer; all that the context leaves where not given")
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data, arguments.rows)
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch)
        prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        with running(tunechat_server(home), Path(scratch) / "server.log") as url:
            began = time.perf_counter()
            answers = asyncio.run(_ask_all(url, rows, arguments.concurrent, arguments.max_tokens))
            seconds = time.perf_counter() - began
    for answer in answers:
        if answer.fault is not None:
            print(f"{answer.row.id}: {answer.fault}", file=sys.stderr)
    report = _report(answers, seconds, arguments.concurrent, arguments.max_tokens)
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "function-calling", report)


async def _ask_all(url: str, rows: Sequence[Row], concurrent: int, max_tokens: int | None) -> list[Answer]:
    places = asyncio.Semaphore(concurrent)
    async with httpx.AsyncClient(base_url=url, timeout=3600, trust_env=False) as client:

        async def one(row: Row) -> Answer:
            async with places:
                return await _ask(client, row, max_tokens)

        return await asyncio.gather(*map(one, rows))


async def _ask(client: httpx.AsyncClient, row: Row, max_tokens: int | None) -> Answer:
    body = {
        "model": DEFAULT_MODEL,
        "messages": row.messages,
        "tools": row.tools,
        "tool_choice": "required",
        "parallel_tool_calls": row.category == "parallel",
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    response = await client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        return Answer(row, [], f"status {response.status_code}: {response.text[:300]}", 0)
    reply = response.json()
    (choice,) = reply["choices"]
    calls, fault = _read(row, choice)
    return Answer(row, calls, fault, reply["usage"]["completion_tokens"])


def _read(row: Row, choice: dict[str, Any]) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    """The calls, up to the first that is wrong, and what is wrong."""
    calls: list[tuple[str, dict[str, Any]]] = []
    message = choice["message"]
    if message["content"] or not message.get("tool_calls"):
        return calls, f"text instead of calls: {message['content']!r:.200}"
    for call in message["tool_calls"]:
        name, text = call["function"]["name"], call["function"]["arguments"]
        try:
            arguments = json.loads(text)
            jsonschema.validate(arguments, row.schemas[name])
        except KeyError:
            return calls, f"{name!r} is none of the functions"
        except ValueError as error:
            return calls, f"{choice['finish_reason']}: {error}: ...{text[-100:]!r}"
        except jsonschema.ValidationError as error:
            return calls, f"not of its schema: {error.message:.200}"
        calls.append((name, arguments))
    return calls, None if choice["finish_reason"] == "tool_calls" else f"ended by {choice['finish_reason']}"


def _report(answers: list[Answer], seconds: float, concurrent: int, max_tokens: int | None) -> str:
    lines = [
        "| category | rows | well formed | right functions | right functions and arguments | calls | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for category in (*CATEGORIES, "all"):
        found = [answer for answer in answers if category in (answer.row.category, "all")]
        if not found:
            continue
        formed = sum(answer.fault is None for answer in found)
        named = sum(answer.has_right_names for answer in found)
        right = sum(answer.is_right for answer in found)
        shares = " | ".join(f"{100 * count / len(found):.1f} %" for count in (formed, named, right))
        calls, tokens = sum(len(answer.calls) for answer in found), sum(answer.tokens for answer in found)
        lines.append(f"| {category} | {len(found)} | {shares} | {calls} | {tokens} |")
    speed = sum(answer.tokens for answer in answers) / seconds
    limit = "no limit but the context's" if max_tokens is None else f"at most {max_tokens} tokens"
    lines += ["", f"- greedy, {limit}, {concurrent} requests at a time: {seconds:.0f} s, {speed:.0f} tokens/s"]
    return "\n".join([*lines, *(f"- {line}" for line in describe())])


if __name__ == "__main__":
    main()
