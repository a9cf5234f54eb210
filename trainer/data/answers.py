"""What an answer says, as a sample has it and as the server would read it from tokens; both must be the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...serve.text.dialects import (
    Call,
    CallArguments,
    CallEnd,
    CallStart,
    Dialect,
    ReasoningDelta,
    TextDelta,
    Thinking,
    Tool,
)
from ...serve.text.dialects.history import read_calls
from ...serve.text.model_text import ModelText


@dataclass(frozen=True, slots=True)
class Answer:
    """One turn of the assistant. `broken` counts calls that do not end."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    broken: int = 0

    @staticmethod
    def of(message: Mapping[str, Any], index: int) -> Answer:
        """What message number `index` says. Raises InvalidRequest, with the path, for a call that is none."""
        content = message["content"]
        text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
        return Answer(text, message.get("reasoning_content") or "", tuple(read_calls(message, index)))

    def difference(self, read: Answer) -> str:
        """How what was `read` differs, for people; "" where it does not. White space at the ends is nothing."""
        if self.calls or read.calls or read.broken:
            if read.broken or len(self.calls) != len(read.calls):
                return f"{len(self.calls)} calls would be read as {len(read.calls)} whole and {read.broken} broken ones"
            for mine, other in zip(self.calls, read.calls, strict=True):
                if mine.name != other.name or _sorted(mine) != _sorted(other):
                    return (
                        f"the call of {mine.name} with {mine.canonical()} would be read as one of {other.name} with "
                        f"{other.canonical()}"
                    )
        for what, mine_text, other_text in (
            ("reasoning", self.reasoning, read.reasoning),
            ("text", self.text, read.text),
        ):
            if mine_text.strip() != other_text.strip():
                return f"its {what} {_short(mine_text)} would be read as {_short(other_text)}"
        return ""


def read_back(
    text: ModelText, dialect: Dialect, tokens: Sequence[int], tools: Sequence[Tool] | None, thinking: Thinking
) -> Answer:
    """What the server would read from the tokens of an answer, its stop token left out.

    `tools` None: calls of any name are read; empty: none are.
    """
    offered = tools is None or len(tools) > 0
    visible = dialect.visible_special_tokens if offered else _reasoning_tokens(dialect)
    detokenizer = text.detokenizer(skip_special=True, continues=True, visible=visible)
    said = detokenizer.push(tokens) + detokenizer.finish()
    if not offered and thinking == "no":
        return Answer(said)
    parser = dialect.parser(tools, thinking=thinking)
    shown: list[str] = []
    thought: list[str] = []
    calls: list[Call] = []
    name, fragments, broken = "", [""], 0
    for event in (*parser.push(said), *parser.finish()):
        match event:
            case TextDelta(piece):
                shown.append(piece)
            case ReasoningDelta(piece):
                thought.append(piece)
            case CallStart(_, started):
                name, fragments = started, []
            case CallArguments(_, fragment):
                fragments.append(fragment)
            case CallEnd(_, complete) if complete:
                calls.append(Call(name, "".join(fragments)))
            case CallEnd():
                broken += 1
    return Answer("".join(shown), "".join(thought), tuple(calls), broken)


def _reasoning_tokens(dialect: Dialect) -> frozenset[int]:
    """What the parser must see where no call is offered."""
    marks = (dialect.reasoning.opener, dialect.reasoning.closer) if dialect.reasoning else ()
    return frozenset(id_ for token, id_ in dialect.special.items() if any(token in mark for mark in marks))


def _sorted(call: Call) -> str:
    return json.dumps(call.value(), sort_keys=True)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
