"""Preference pairs: one prompt, the answer that was chosen, and the one that was rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .alpaca import add_history, question_of
from .completion import add
from .form import fields_of, object_at, text_at, tools_at
from .sharegpt import conversation_of
from .turns import Message, Turns

_PAIRS = (
    ("preferred_output", "non_preferred_output"),
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
)
_HH = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")


class Preference:
    """Pairs as OpenAI, TRL, LLaMA-Factory and Anthropic's HH write them."""

    name = "preference"
    about = '{"prompt", "chosen", "rejected"}, or OpenAI\'s {"input", "preferred_output", "non_preferred_output"}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return 3 * (_pair(value) is not None or _is_swift(value))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        if _is_swift(value):
            turns = Turns(record)
            turns.read(value["messages"], "messages")
            return self._made(turns, [*turns.messages], value.get("rejected_response"), "rejected_response", value)
        pair = _pair(value)
        if pair is None:
            raise record.error("a pair lacks an answer", 'write "chosen" and "rejected"', kind="format")
        good, bad = pair
        turns = Turns(record, text_at(record, value.get("system"), "system"))
        outer = self._prompt(turns, value, good)
        before = len(turns.messages)
        _add_answer(turns, value[good], good)
        if len(turns.messages) == before:
            raise record.error("there is no answer", "write one", field=good, kind="empty")
        return self._made(turns, [*turns.messages], value[bad], bad, outer)

    def _prompt(self, turns: Turns, value: Mapping[str, Any], good: str) -> Mapping[str, Any]:
        """Add what was asked; the answer is the object that has the tools."""
        field = conversation_of(value)
        if good == "preferred_output":
            outer = object_at(turns.record, value.get("input"), "input")
            turns.read(outer.get("messages"), "input.messages")
            return outer
        if _holds_prompt(value[good]):
            return value
        if field or isinstance(value.get("messages"), list):
            turns.read(value[field or "messages"], field or "messages")
        elif "prompt" in value:
            add(turns, "user", value["prompt"], "prompt")
        else:
            add_history(turns, value.get("history"))
            question = value.get("question", value.get("query"))
            text = question_of(turns.record, value)
            turns.say("user", text or text_at(turns.record, question, "question"))
        return value

    def _made(
        self, turns: Turns, chosen: list[Message], rejected: Any, field: str, outer: Mapping[str, Any]
    ) -> Conversation:
        """The pair. Where the rejected answer repeats the prompt, only what differs is kept."""
        other = Turns(turns.record)
        _add_answer(other, rejected, field)
        answer = other.messages
        if _holds_prompt(rejected):
            same = 0
            while same < min(len(answer), len(chosen)) - 1 and answer[same] == chosen[same]:
                same += 1
            answer = answer[same:]
        if not answer:
            raise turns.record.error("there is no answer", "write one", field=field, kind="empty")
        parallel = outer.get("parallel_tool_calls", True) is not False
        tools = tools_at(turns.record, outer.get("tools"))
        return turns.conversation(tools=tools, rejected=tuple(answer), parallel_tool_calls=parallel)


def _pair(value: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((pair for pair in _PAIRS if pair[0] in value and pair[1] in value), None)


def _is_swift(value: Mapping[str, Any]) -> bool:
    return "rejected_response" in value and "chosen_response" not in value and isinstance(value.get("messages"), list)


def _holds_prompt(answer: Any) -> bool:
    """Whether the answer begins with what was asked: messages that begin with the user, or HH's text."""
    if isinstance(answer, str):
        return answer.lstrip().startswith("Human:")
    first = answer[0] if isinstance(answer, list) and answer else None
    return isinstance(first, Mapping) and first.get("role", first.get("from")) in ("system", "user", "human")


def _add_answer(turns: Turns, value: Any, field: str) -> None:
    if isinstance(value, str) and _holds_prompt(value):
        pieces = _HH.split("\n\n" + value.lstrip())
        for role, said in zip(pieces[1::2], pieces[2::2], strict=True):
            turns.say("user" if role == "Human" else "assistant", said.strip())
        return
    add(turns, "assistant", value, field)
