"""Requests with tools whose right calls are known: read from the file that a trainer wrote, and asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract.errors import InvalidSample
from ..turn_events import Turn
from .scores import Call, RowScore, score_row

MOST_ROWS = 32
# No request of this size has an answer that says anything about calls.
_LONGEST_LINE = 1 << 20
# Tokens of an answer: some words before the calls, and as many as the right ones have characters, which is plenty.
_WORDS_TOKENS = 96
_MOST_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Probe:
    """One request: `messages` and `tools` as OpenAI has them, and the calls that are right, none where none is."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    right: tuple[Call, ...]

    @property
    def request(self) -> dict[str, Any]:
        """A chat request that asks it, but for the model."""
        size = sum(len(call.name) + len(call.arguments) for call in self.right)
        return {
            "messages": self.messages,
            "tools": self.tools,
            "tool_choice": "auto",
            "temperature": 0,
            "max_tokens": min(_WORDS_TOKENS + size, _MOST_TOKENS),
        }

    def score(self, turn: Turn) -> RowScore:
        """How right `turn` is as the answer."""
        offered = {str(_function(tool).get("name")) for tool in self.tools}
        return score_row(self.right, [Call(call.name, call.arguments) for call in turn.calls], offered)


def read_probes(path: Path, most: int = MOST_ROWS) -> list[Probe]:
    """The first `most` rows of a JSONL file. Raises InvalidSample, which names the line, and OSError."""
    probes: list[Probe] = []
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(_LONGEST_LINE)
            if not line or len(probes) >= most:
                return probes
            if line.strip():
                probes.append(_probe(line, number))
    return probes


def _probe(line: bytes, number: int) -> Probe:
    try:
        row = json.loads(line)
        messages, tools = row["messages"], row["tools"]
        right = tuple(_call(call) for call in row["calls"])
        if not (isinstance(messages, list) and isinstance(tools, list)):
            raise TypeError("messages and tools are lists")
        return Probe(messages, tools, right)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidSample(f"line {number} of the held-out requests is none with messages, tools, calls") from error


def _call(call: Mapping[str, Any]) -> Call:
    """A call as OpenAI writes it, or with nothing but name and arguments; these may be text or an object."""
    function = _function(call)
    arguments = function["arguments"]
    return Call(function["name"], arguments if isinstance(arguments, str) else json.dumps(arguments))


def _function(value: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = value.get("function")
    return inner if isinstance(inner, Mapping) else value
