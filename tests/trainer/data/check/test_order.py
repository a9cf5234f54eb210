"""What is said of the order of messages."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.tests.trainer.data.writing import call, chat, result
from tunechat.trainer.data.check.order import problems_of_order

Q, A, S = ("user", "q"), ("assistant", "a"), ("system", "s")


def found(*messages: Any, **more: Any) -> list[tuple[str, str]]:
    return [(problem.kind, problem.field) for problem in problems_of_order(chat(*messages, **more))]


@pytest.mark.parametrize(
    "messages",
    [
        (Q, A),
        (S, Q, A, Q, A),
        (("developer", "d"), Q, call("f", "{}"), result("1"), A),
        (Q, call("f", "{}", "a"), result("1", "a"), call("f", "{}", "b"), result("1", "b"), A),
        (Q, call("f", "{}")),
        ({"role": "assistant", "content": "hello", "weight": 0}, Q, A),
        (Q, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}),
    ],
)
def test_nothing_is_wrong(messages: Any) -> None:
    assert found(*messages) == []


def test_a_call_at_the_end_needs_no_result() -> None:
    assert found(Q, A, Q, call("f", "{}")) == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((Q, A, S, Q, A), ("role_order", "messages[2].role")),
        ((Q, Q, A), ("role_order", "messages[1].role")),
        ((Q, A, A), ("role_order", "messages[2].role")),
        ((S, A, Q, A), ("role_order", "messages[1].role")),
        ((Q, A, Q), ("unlearned_end", "messages[2]")),
        ((Q, call("f", "{}"), result("1")), ("unlearned_end", "messages[2]")),
        ((Q, call("f", "{}"), result("1"), Q, A), ("role_order", "messages[3].role")),
        ((Q, result("1"), A), ("tool_result", "messages[1].tool_call_id")),
        ((Q, call("f", "{}"), result("1", "other"), A), ("tool_result", "messages[2].tool_call_id")),
        ((Q, call("f", "{}"), A), ("tool_result", "messages[1].tool_calls[0]")),
        ((Q, ("assistant", " \n"), Q, A), ("empty_answer", "messages[1].content")),
        ((("user", ""), A), ("empty_question", "messages[0].content")),
        ((Q, {"role": "assistant", "content": "a", "weight": 0}), ("nothing_to_learn", "messages")),
    ],
)
def test_what_is_wrong_is_named(messages: Any, problem: tuple[str, str]) -> None:
    assert problem in found(*messages)


def test_rejected_answers_may_not_be_empty() -> None:
    assert found(Q, A, rejected=({"role": "assistant", "content": ""},)) == [("empty_answer", "rejected")]


def test_ids_stand_once_in_a_turn() -> None:
    twice = call("f", "{}")
    twice["tool_calls"] *= 2
    assert ("tool_result", "messages[1].tool_calls[1].id") in found(Q, twice, result("1"), A)
