"""Rows of the Berkeley Function Calling Leaderboard as a client would send them, and whether calls are right.

The data is read from the wheel of `bfcl-eval` or from its unpacked `data` folder; none of it is kept here.
"""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = ("simple_python", "multiple", "parallel")

_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
_INSIDE = ("items", "additionalProperties")
# What the leaderboard's own comparison of texts passes over.
_IDLE = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True, slots=True)
class Row:
    """One question: `tools` as OpenAI has them, and the right calls, each argument with all of its right values.

    "" among these says that the argument may be left out.
    """

    id: str
    category: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    expected: list[tuple[str, Mapping[str, Sequence[Any]]]]

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """The schema of each function's arguments."""
        return {tool["function"]["name"]: tool["function"]["parameters"] for tool in self.tools}


def read_rows(source: Path, count: int) -> list[Row]:
    """About `count` rows, as many of each category and evenly spread over it. Raises SystemExit without the data."""
    rows: list[Row] = []
    for at, category in enumerate(CATEGORIES):
        share = count // len(CATEGORIES) + (at < count % len(CATEGORIES))
        found = read_category(source, category)
        step = max(len(found) / max(share, 1), 1)
        rows += [found[int(number * step)] for number in range(min(share, len(found)))]
    return rows


def read_category(source: Path, category: str) -> list[Row]:
    """All rows of a category, in the order of the data. Raises SystemExit without the data."""
    questions = _lines(source, f"BFCL_v4_{category}.json")
    answers = {line["id"]: line for line in _lines(source, f"possible_answer/BFCL_v4_{category}.json")}
    return [_row(category, question, answers[question["id"]]["ground_truth"]) for question in questions]


def is_right(row: Row, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Whether `calls` are the expected ones in any order: every name, and every argument with one of its right values.

    A call without arguments is never right where the function has some.
    """
    if not has_right_names(row, [name for name, _ in calls]):
        return False
    return any(
        all(_is_call(call, expected) for call, expected in zip(order, row.expected, strict=True))
        for order in itertools.permutations(calls)
    )


def has_right_names(row: Row, names: Sequence[str]) -> bool:
    """Whether the right functions were called, each as often as it should be."""
    return sorted(names) == sorted(name for name, _ in row.expected)


def _is_call(call: tuple[str, Mapping[str, Any]], expected: tuple[str, Mapping[str, Sequence[Any]]]) -> bool:
    (name, arguments), (right_name, right) = call, expected
    return name == right_name and (bool(arguments) or not right) and _is_object(arguments, right)


def _is_object(value: Mapping[str, Any], right: Mapping[str, Sequence[Any]]) -> bool:
    if value.keys() - right.keys():
        return False
    return all(_is_one_of(value[key], options) if key in value else "" in options for key, options in right.items())


def _is_one_of(value: Any, options: Sequence[Any]) -> bool:
    return any(_is_same(value, option) for option in options)


def _is_same(value: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return isinstance(value, dict) and _is_object(value, right)
    if isinstance(right, list):
        return isinstance(value, list) and len(value) == len(right) and all(map(_is_same, value, right))
    if isinstance(right, str):
        return isinstance(value, str) and _plain(value) == _plain(right)
    if isinstance(right, bool) or isinstance(value, bool):
        return value is right
    return bool(value == right)


def _plain(text: str) -> str:
    return _IDLE.sub("", text).lower().replace("'", '"')


def _row(category: str, question: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> Row:
    expected = [(_name(name), arguments) for answer in answers for name, arguments in answer.items()]
    (messages,) = question["question"]
    return Row(question["id"], category, messages, [_tool(function) for function in question["function"]], expected)


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    told = {**function, "name": _name(function["name"]), "parameters": _schema(function["parameters"])}
    return {"type": "function", "function": told}


def _name(name: str) -> str:
    """Names hold dots, which OpenAI's may not."""
    return name.replace(".", "_")


def _schema(value: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in JSON Schema's words instead of Python's."""
    schema = {key: item for key, item in value.items() if key != "type" or item != "any"}
    if "type" in schema:
        schema["type"] = _TYPES.get(schema["type"], schema["type"])
    for key in _INSIDE:
        if isinstance(schema.get(key), Mapping):
            schema[key] = _schema(schema[key])
    if "properties" in schema:
        schema["properties"] = {name: _schema(part) for name, part in schema["properties"].items()}
    return schema


def _lines(source: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _text(source, name).splitlines() if line.strip()]


def _text(source: Path, name: str) -> str:
    if source.is_dir():
        found = next(_candidates(source, name), None)
        if found is None:
            raise SystemExit(f"{source} has no {name}")
        return found.read_text(encoding="utf-8")
    try:
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(f"bfcl_eval/data/{name}").decode()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{source} is no wheel of bfcl-eval with {name} in it: {error}") from error


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    return (path for path in (folder / name, folder / "bfcl_eval" / "data" / name) if path.is_file())
