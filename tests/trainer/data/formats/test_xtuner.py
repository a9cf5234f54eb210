"""XTuner's own lists."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.xtuner import XTuner
from tunechat.trainer.data.sample import Conversation, PlainText


def test_turns_with_system_and_without_loss() -> None:
    turns = [
        {"system": "s", "input": "q", "output": "a", "output_with_loss": False},
        {"input": "r", "output": "b", "need_eos_token": True},
    ]
    assert XTuner().recognises({"conversation": turns})
    sample = XTuner().read(record({"conversation": turns}))
    assert said(sample) == [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    assert isinstance(sample, Conversation)
    assert [message.get("weight") for message in sample.messages] == [None, None, 0, None, None]


def test_empty_inputs_are_plain_text() -> None:
    sample = XTuner().read(record({"conversation": [{"input": "", "output": "a "}, {"input": "", "output": "b"}]}))
    assert isinstance(sample, PlainText) and sample.text == "a b"


def test_moss_002() -> None:
    value = {"conversation": [{"human": "q", "assistant": "a"}]}
    assert XTuner().recognises(value)
    assert said(XTuner().read(record(value))) == [("user", "q"), ("assistant", "a")]


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InvalidData) as raised:
        XTuner().read(record({"conversation": [{"input": "q", "output": ["a"]}]}))
    assert raised.value.field == "conversation[0].output"
