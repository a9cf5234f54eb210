"""How often models of a running server make the right call, on rows that no training has seen.

    python examples/tools/score.py build/held-out.jsonl smollm2-135m-instruct tools

asks every model the same rows as a client would, `tool_choice` "auto", greedily, and prints a table. A row is right
when the leaderboard's own rules say so: the right function, and every argument with one of its right values.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bfcl import Row, has_right_names, is_right

COLUMNS = (
    "model",
    "rows",
    "calls",
    "valid JSON",
    "right function",
    "right function and arguments",
    "tokens",
    "seconds",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The calls that a model made for a row, with arguments as it wrote them. `error` is the server's, "" for none."""

    row: Row
    calls: list[tuple[str, str]]
    tokens: int = 0
    error: str = ""

    @property
    def values(self) -> list[tuple[str, dict[str, Any]]] | None:
        """The calls with their arguments as objects; None where one of them is none."""
        made = []
        for name, text in self.calls:
            try:
                arguments = json.loads(text)
            except ValueError:
                return None
            if not isinstance(arguments, dict):
                return None
            made.append((name, arguments))
        return made

    @property
    def has_right_names(self) -> bool:
        return has_right_names(self.row, [name for name, _ in self.calls])

    @property
    def is_right(self) -> bool:
        return self.values is not None and is_right(self.row, self.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="held-out.jsonl, as prepare.py writes it")
    parser.add_argument("models", nargs="+", help="models as the server lists them")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--limit", type=int, help="how many rows, spread evenly; all where not given")
    parser.add_argument("--concurrent", type=int, default=8, help="requests at a time")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer")
    arguments = parser.parse_args()
    rows = spread(read(arguments.rows), arguments.limit)
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for model in arguments.models:
        began = time.perf_counter()
        answers = asyncio.run(ask_all(arguments.url, model, rows, arguments.concurrent, arguments.max_tokens))
        lines.append(line(model, answers, time.perf_counter() - began))
        for answer in answers:
            if answer.error:
                print(f"{model}: {answer.row.id}: {answer.error}", file=sys.stderr)
    for cells in lines:
        print(f"| {' | '.join(cells)} |")


def read(path: Path) -> list[Row]:
    """The rows of a file, without the answers in it."""
    rows = []
    for text in path.read_text(encoding="utf-8").splitlines():
        value = json.loads(text)
        expected = [(call["name"], call["arguments"]) for call in value["expected"]]
        rows.append(Row(value["id"], value["category"], value["messages"][:-1], value["tools"], expected))
    return rows


def spread(rows: list[Row], limit: int | None) -> list[Row]:
    if limit is None or limit >= len(rows):
        return rows
    return [rows[number * len(rows) // limit] for number in range(limit)]


async def ask_all(url: str, model: str, rows: Sequence[Row], concurrent: int, max_tokens: int) -> list[Answer]:
    places = asyncio.Semaphore(concurrent)
    headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=3600, trust_env=False) as client:

        async def one(row: Row) -> Answer:
            async with places:
                return await ask(client, model, row, max_tokens)

        return await asyncio.gather(*map(one, rows))


async def ask(client: httpx.AsyncClient, model: str, row: Row, max_tokens: int) -> Answer:
    body = {
        "model": model,
        "messages": row.messages,
        "tools": row.tools,
        "tool_choice": "auto",
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    response = await client.post("/v1/chat/completions", json=body)
    if response.status_code != httpx.codes.OK:
        return Answer(row, [], error=f"status {response.status_code}: {response.text[:300]}")
    reply = response.json()
    calls = [call["function"] for call in reply["choices"][0]["message"].get("tool_calls") or ()]
    return Answer(row, [(call["name"], call["arguments"]) for call in calls], reply["usage"]["completion_tokens"])


def line(model: str, answers: Sequence[Answer], seconds: float) -> tuple[str, ...]:
    """A model's row of the table; all parts are of all rows."""

    def part(count: int) -> str:
        return f"{100 * count / max(len(answers), 1):.1f} %"

    return (
        model,
        str(len(answers)),
        part(sum(bool(answer.calls) for answer in answers)),
        part(sum(bool(answer.calls) and answer.values is not None for answer in answers)),
        part(sum(answer.has_right_names for answer in answers)),
        part(sum(answer.is_right for answer in answers)),
        str(sum(answer.tokens for answer in answers)),
        f"{seconds:.0f}",
    )


if __name__ == "__main__":
    main()
