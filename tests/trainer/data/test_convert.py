"""Conversion: what is written reads back as the same samples, and files are whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.contract.errors import Conflict, InvalidData
from tunechat.tests.trainer.data.test_json_text import VALUES
from tunechat.tests.trainer.data.writing import call, chat, result, tool
from tunechat.trainer.data.convert import write_openai
from tunechat.trainer.data.json_text import write_json
from tunechat.trainer.data.sample import Conversation, Place, PlainText, Sample
from tunechat.trainer.data.samples import read_samples

TEXTS = st.text(max_size=8)
NAMES = st.sampled_from(["f", "get_weather", "x-1"])
ARGUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)
SCHEMAS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A question, calls with their results where there are some, and an answer."""
    made: list[dict[str, Any]] = [{"role": "user", "content": draw(TEXTS)}]
    for number in range(draw(st.integers(0, 2))):
        id_ = f"id-{draw(st.integers(0, 99))}-{number}"
        made += [call(draw(NAMES), write_json(draw(ARGUMENTS)), id_), result(draw(TEXTS), id_)]
    answer = {"role": "assistant", "content": draw(TEXTS)}
    weight = draw(st.sampled_from([None, 0, 1, 0.5]))
    return [*made, answer if weight is None else {**answer, "weight": weight}]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages = [message for part in draw(st.lists(turns(), min_size=1, max_size=3)) for message in part]
    if draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(st.text(min_size=1, max_size=8))})
    tools = tuple(tool(name, draw(SCHEMAS)) for name in draw(st.lists(NAMES, unique=True)))
    rejected = ({"role": "assistant", "content": draw(TEXTS)},) if draw(st.booleans()) else ()
    return chat(*messages, tools=tools, parallel_tool_calls=draw(st.booleans()), rejected=rejected)


def placeless(sample: Sample) -> Sample:
    return replace(sample, place=Place("", 0))


@settings(max_examples=60)
@given(st.lists(conversations(), min_size=1, max_size=3), st.data())
def test_conversations_read_back(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Conversation], data: st.DataObject
) -> None:
    """A file is of one format, so pairs and chats do not mix."""
    if data.draw(st.booleans()):
        samples = [replace(sample, rejected=()) for sample in samples]
    else:
        worse = ({"role": "assistant", "content": "no"},)
        samples = [replace(sample, rejected=sample.rejected or worse) for sample in samples]
    path = tmp_path_factory.mktemp("a") / "a.jsonl"
    assert write_openai(samples, path) == len(samples)
    assert list(map(placeless, read_samples(path))) == list(map(placeless, samples))
    again = path.with_name("b.jsonl")
    write_openai(read_samples(path), again)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=20)
@given(st.lists(st.text(), min_size=1))
def test_text_reads_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    texts = [f"x{text}" for text in texts]
    path = tmp_path_factory.mktemp("a") / "a.jsonl"
    write_openai((PlainText(text, Place("a", 1)) for text in texts), path)
    assert [sample.text for sample in read_samples(path) if isinstance(sample, PlainText)] == texts


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    with pytest.raises(Conflict, match="--force"):
        write_openai([], path)

    def breaks() -> Iterator[Sample]:
        yield chat(("user", "q"), ("assistant", "a"))
        raise InvalidData("wrong", "mend", file="a")

    with pytest.raises(InvalidData):
        write_openai(breaks(), path, force=True)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
