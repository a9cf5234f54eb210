"""One example to learn from, whatever form its file had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample stands: the file, and its line (JSONL, text), row (tables) or number (JSON arrays), from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in OpenAI's form, as the file had them: tool calls with their arguments as JSON text, `weight` kept.

    `tools` are JSON, as they were written. `rejected` is the other answer of a preference pair, whose chosen one stands
    last in `messages`.
    """

    messages: Sequence[Mapping[str, Any]]
    place: Place
    tools: Sequence[Mapping[str, Any]] = ()
    parallel_tool_calls: bool = True
    rejected: Sequence[Mapping[str, Any]] = field(default=())


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text to go on from, for incremental pre-training."""

    text: str
    place: Place


Sample = Conversation | PlainText
