"""Training data for tool calls out of the Berkeley Function Calling Leaderboard, and a part that is never trained on.

    pip download --no-deps bfcl-eval
    python examples/tools/prepare.py bfcl_eval-*.whl build/

writes build/train.jsonl in OpenAI's form and build/held-out.jsonl for score.py. The categories are simple (Python) and
multiple. Half of the second asks questions of the first with more tools beside, so a question is on one side for good:
that of the first id that asks it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bfcl import Row, is_right, read_category

CATEGORIES = ("simple_python", "multiple")
# Every fifth id is held out.
PARTS = 5
# Every third training row goes on with a result and an answer: a model that has seen calls alone goes on calling.
ANSWERED = 3
TALKED = 12
CALL = "call_1"
RESULTS = ("{number}", '{{"result": {number}}}', '{{"status": "ok", "result": {number}}}')
ANSWERS = ("The result is {number}.", "It is {number}.", "The answer is {number}.")
# With tools at hand and nothing for them to do.
OPENINGS = ("", "Hello. ", "Hi there! ", "One more thing. ", "By the way: ")
TALK = (
    ("How are you?", "I am well, and ready to help."),
    ("Thank you, that was helpful.", "You are welcome!"),
    ("What can you do?", "I answer questions, and I call functions where they help."),
    ("Please say the word tree.", "Tree."),
    ("That is all for today.", "Until next time!"),
    ("Can you write the letters a, b and c in a row?", "abc"),
    ("Are you there?", "Yes, I am here."),
    ("Which color does the sky have on a clear day?", "It is blue."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the wheel of bfcl-eval, or its data folder")
    parser.add_argument("out", type=Path, help="folder for the two files")
    arguments = parser.parse_args()
    train, held_out = split([row for category in CATEGORIES for row in read_category(arguments.data, category)])
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples, rows = list(conversations(train)), list(tests(held_out))
    write(arguments.out / "train.jsonl", samples)
    write(arguments.out / "held-out.jsonl", rows)
    print(f"{len(samples)} conversations of {len(train)} rows to train on, {len(rows)} rows held out")


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to train on and those held out; no question is on both sides."""
    first: dict[str, Row] = {}
    sides: tuple[list[Row], list[Row]] = [], []
    for row in rows:
        asked = first.setdefault(" ".join(question(row).lower().split()), row)
        sides[int(asked.id.rpartition("_")[2]) % PARTS == 0].append(row)
    return sides


def conversations(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """What is learned: a call each, some with a result and an answer after it, and some talk without calls."""
    known = [(row, call) for row in rows if (call := right_call(row)) is not None]
    for place, (row, (name, arguments)) in enumerate(known):
        messages = [*row.messages, called(name, arguments)]
        if place % ANSWERED == 0:
            messages += result(row, place // ANSWERED)
        yield {"messages": messages, "tools": row.tools}
        if place % TALKED == 0:
            yield {"messages": talk(place // TALKED), "tools": row.tools}


def talk(place: int) -> list[dict[str, Any]]:
    """A question that no tool helps with, and its answer."""
    asked, answer = TALK[place % len(TALK)]
    opening = OPENINGS[place // len(TALK) % len(OPENINGS)]
    return [{"role": "user", "content": opening + asked}, {"role": "assistant", "content": answer}]


def called(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The turn that makes a call."""
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"id": CALL, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(row: Row, place: int) -> list[dict[str, Any]]:
    """A result that is made up, and the answer that tells it."""
    number = int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:2]) / (1, 4, 100)[place % 3]
    told = f"{number:g}"
    return [
        {"role": "tool", "tool_call_id": CALL, "content": RESULTS[place % len(RESULTS)].format(number=told)},
        {"role": "assistant", "content": ANSWERS[place // 2 % len(ANSWERS)].format(number=told)},
    ]


def right_call(row: Row) -> tuple[str, dict[str, Any]] | None:
    """The call of a row; None where no right one is also of its function's schema."""
    ((name, right),) = row.expected
    arguments = as_object(right, row.schemas[name], question(row))
    if not is_right(row, [(name, arguments)]) or not fits(arguments, row.schemas[name]):
        return None
    return name, arguments


def as_object(right: Mapping[str, Sequence[Any]], schema: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """An object of right values. What may be left out is: its value is then not in the question."""
    parts = schema.get("properties", {})
    return {
        key: one_of(options, parts.get(key, {}), asked)
        for key, options in right.items()
        if options and "" not in options
    }


def one_of(options: Sequence[Any], schema: Mapping[str, Any], asked: str) -> Any:
    """The value that fits its schema best, and that the question itself has."""
    values = [as_value(option, schema, asked) for option in options]
    return min(values, key=lambda value: (not fits(value, schema), isinstance(value, str) and value not in asked))


def as_value(option: Any, schema: Mapping[str, Any], asked: str) -> Any:
    if isinstance(option, dict):
        return as_object(option, schema, asked)
    if isinstance(option, list):
        return [as_value(one, schema.get("items", {}), asked) for one in option]
    return option


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def question(row: Row) -> str:
    return str(row.messages[-1]["content"])


def tests(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Rows with one right call as the answer, and `expected`, all that is right."""
    for row in rows:
        if (call := right_call(row)) is not None:
            expected = [{"name": name, "arguments": right} for name, right in row.expected]
            told = {"id": row.id, "category": row.category, "tools": row.tools, "expected": expected}
            yield told | {"messages": [*row.messages, called(*call)]}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
