"""Columns of questions and answers, guessed and named."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.question_answer import QuestionAnswer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "ANSWER"),
        ("Query", "response"),
        ("问题", "答案"),
        ("Q", "A"),
        ("input", "output"),
        (" User ", "reply"),
    ],
)
def test_guesses(question: str, answer: str) -> None:
    value = {"topic": "t", question: "q", answer: "a", "url": "u"}
    assert QuestionAnswer().recognises(value)
    assert said(QuestionAnswer().read(record(value))) == [("user", "q"), ("assistant", "a")]


def test_named_columns_come_before_guesses() -> None:
    value = {"question": "no", "What they ask": "q", "answer": "no", "what we say": "a", "system": "s"}
    form = QuestionAnswer("what they  ASK", "What we say")
    assert said(form.read(record(value))) == [("system", "s"), ("user", "q"), ("assistant", "a")]


def test_columns_that_are_not_there() -> None:
    with pytest.raises(InvalidData, match=r"no column 'ask'.*out of: question, answer"):
        QuestionAnswer("ask").read(record({"question": "q", "answer": "a"}))
    with pytest.raises(InvalidData, match="no column is known"):
        QuestionAnswer().read(record({"x": "q", "y": "a"}))
    assert not QuestionAnswer().recognises({"question": "q"})
