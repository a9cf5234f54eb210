"""Preference pairs, as five projects write them."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.preference import Preference

USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 5},
        {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
        {"question": "q", "chosen": "good", "rejected": "bad"},
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"messages": [USER, GOOD], "rejected_response": "bad"},
    ],
)
def test_all_of_them_give_one_pair(value: dict[str, Any]) -> None:
    assert Preference().recognises(value)
    sample = Preference().read(record(value))
    assert said(sample) == [("user", "q"), ("assistant", "good")]
    assert list(sample.rejected) == [BAD]


def test_tools_of_openais_pairs() -> None:
    inner = {
        "messages": [USER],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "parallel_tool_calls": False,
    }
    sample = Preference().read(record({"input": inner, "preferred_output": [GOOD], "non_preferred_output": [BAD]}))
    assert sample.tools[0]["function"] == {"name": "f"} and not sample.parallel_tool_calls


@pytest.mark.parametrize("value", [{"prompt": "q", "chosen": "a"}, {"prompt": "q", "chosen": [], "rejected": "b"}])
def test_half_a_pair_is_an_error(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidData, match="answer"):
        Preference().read(record(value))
