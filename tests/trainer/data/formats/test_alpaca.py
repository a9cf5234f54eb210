"""Alpaca and its variants."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.alpaca import Alpaca


def test_instruction_input_and_output() -> None:
    value = {"instruction": "Add.", "input": "1 1", "output": "2", "text": "Below is ..."}
    assert Alpaca().recognises(value)
    assert said(Alpaca().read(record(value))) == [("user", "Add.\n1 1"), ("assistant", "2")]


def test_no_input_system_and_history() -> None:
    value = {"instruction": "now?", "input": "", "output": "z", "system": "s", "history": [["q", "a"], ["r", "b"]]}
    assert said(Alpaca().read(record(value))) == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "r"),
        ("assistant", "b"),
        ("user", "now?"),
        ("assistant", "z"),
    ]


@pytest.mark.parametrize("name", ["response", "answer", "completion"])
def test_other_names_of_the_answer(name: str) -> None:
    value = {"instruction": "q", name: 3}
    assert said(Alpaca().read(record(value)))[-1] == ("assistant", "3")


@pytest.mark.parametrize(
    ("more", "field"),
    [({"history": [["q"]]}, "history[0]"), ({"output": ["x"]}, "output"), ({"input": True}, "input")],
)
def test_what_is_wrong_is_named(more: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidData) as raised:
        Alpaca().read(record({"instruction": "q", "output": "a", **more}))
    assert raised.value.field == field


def test_nothing_else_is_recognised() -> None:
    assert not Alpaca().recognises({"instruction": "q"})
    assert not Alpaca().recognises({"input": "q", "output": "a"})
