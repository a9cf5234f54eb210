"""The format is found by looking, and where it is not, the error says how to go on."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.trainer.data.formats.choice import FORMATS, NAMES, choose_format, format_named, found_format
from tunechat.trainer.data.record import Record
from tunechat.trainer.data.sample import Place

USER = {"role": "user", "content": "q"}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
AGENT = [*TURNS[:1], {"from": "assistant", "value": "<|startofthink|>{}<|endofthink|>"}]

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "openai": [{"messages": [USER], "text": "x", "prompt": "q"}],
    "prompt-completion": [{"prompt": "q", "completion": "a"}],
    "alpaca": [{"instruction": "q", "input": "", "output": "a", "text": "all"}],
    "sharegpt": [{"conversations": TURNS, "text": "x"}],
    "msagent": [{"conversations": TURNS}, {"conversations": AGENT}, {"conversations": TURNS}],
    "moss": [{"chat": {"turn_1": {}}, "meta_instruction": "x"}],
    "xtuner": [{"conversation": [{"input": "q", "output": "a"}]}],
    "oasst": [{"text": "### Human: q### Assistant: a"}],
    "text": [{"text": "once"}, {"text": "upon"}],
    "question-answer": [{"Question": "q", "Answer": "a", "text": "x"}],
    "preference": [{"prompt": "q", "chosen": "a", "rejected": "b", "completion": "a"}],
}


def records(values: list[Any]) -> list[Record | InvalidData]:
    return [Record(value, Place("a.jsonl", line)) for line, value in enumerate(values, 1)]


def test_every_format_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found(name: str) -> None:
    form, items = found_format(iter(records(EXAMPLES[name])), "a.jsonl")
    assert form.name == name and format_named(name) is form
    assert len(list(items)) == len(EXAMPLES[name])


def test_most_records_decide_and_none_is_lost() -> None:
    values: list[Any] = [*[{"text": "x"}] * 2, *[{"prompt": "q", "completion": "a"}] * 97, 5]
    form, items = found_format(iter(records(values)), "a.jsonl")
    assert form.name == "prompt-completion" and len(list(items)) == 100


@pytest.mark.parametrize("values", [[{"x": 1, "y": 2}], [[1]], [3, {"text": "x"}]])
def test_what_is_not_known_says_what_it_has(values: list[Any]) -> None:
    with pytest.raises(InvalidData, match="--question") as raised:
        found_format(iter(records(values)), "a.jsonl")
    assert raised.value.kind == "format"


def test_an_empty_file_and_one_of_errors() -> None:
    with pytest.raises(InvalidData, match="no records"):
        found_format(iter([]), "a.jsonl")
    wrong = InvalidData("this is no JSON", "mend it", file="a.jsonl", line=1)
    with pytest.raises(InvalidData, match="no JSON"):
        found_format(iter([wrong]), "a.jsonl")


def test_names() -> None:
    with pytest.raises(ConfigError, match="no format 'chatml'"):
        format_named("chatml")
    assert choose_format([]) == (None, 0)
    assert all(form.about for form in FORMATS)
