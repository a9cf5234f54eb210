"""Chats in one text."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.oasst import Oasst


def test_headings_part_the_turns_with_and_without_line_ends() -> None:
    value = {"text": "### Human: hi ### there### Assistant: yo\n\n### Human: and?\n### Assistant: so\nso."}
    assert Oasst().recognises(value)
    assert said(Oasst().read(record(value))) == [
        ("user", "hi ### there"),
        ("assistant", "yo"),
        ("user", "and?"),
        ("assistant", "so\nso."),
    ]


def test_text_without_headings() -> None:
    assert not Oasst().recognises({"text": "Human: hi"})
    with pytest.raises(InvalidData, match="begin with `### Human:`"):
        Oasst().read(record({"text": "hm ### Human: hi"}))
