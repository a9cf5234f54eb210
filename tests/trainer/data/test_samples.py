"""Whole files of every format, and what goes wrong in the middle of them."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import pytest

from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.tests.trainer.data.formats.test_choice import EXAMPLES
from tunechat.tests.trainer.data.writing import errors, one, said, write_lines
from tunechat.trainer.data.files.sources import Source
from tunechat.trainer.data.sample import PlainText
from tunechat.trainer.data.samples import Reading, read_samples, samples_or_errors, weighted_samples

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize("name", ["openai", "alpaca", "sharegpt", "xtuner", "oasst", "question-answer", "preference"])
@pytest.mark.parametrize("as_array", [False, True])
def test_files_of_each_format(tmp_path: Path, name: str, as_array: bool) -> None:
    path = tmp_path / "data.jsonl"
    if as_array:
        path.write_text(json.dumps(EXAMPLES[name], indent=1))
    else:
        write_lines(path, EXAMPLES[name])
    assert Reading().opened(path)[0].name == name
    assert said(one(path))[0] == ("user", "q")


def test_messages_in_cells_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "messages"], ["1", json.dumps(CHAT["messages"])]])
    assert said(one(path)) == [("user", "q"), ("assistant", "a")]


def test_text_files_are_text_unless_they_are_chats(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Once upon a time.\n")
    assert [sample.text for sample in read_samples(path) if isinstance(sample, PlainText)] == ["Once upon a time."]
    path.write_text("### Human: q\n### Assistant: a\n")
    assert said(one(path)) == [("user", "q"), ("assistant", "a")]


def test_named_formats_and_columns(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "a", "text": "t"}])
    (sample,) = read_samples(path, Reading(format="text"))
    assert isinstance(sample, PlainText) and sample.text == "t"
    assert said(one(path, Reading(question="text", answer="prompt"))) == [("user", "t"), ("assistant", "q")]
    with pytest.raises(ConfigError, match="no format 'x'"):
        next(read_samples(path, Reading(format="x")))


def test_wrong_records_stand_in_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(CHAT)
    bad = json.dumps({"messages": [{"role": "wizard", "content": "x"}]})
    path.write_text(f"{good}\n{bad}\nno json\n[1]\n{good}\n")
    items = list(samples_or_errors(path))
    assert [(error.line, error.kind) for error in items if isinstance(error, InvalidData)] == [
        (2, "role"),
        (3, "json"),
        (4, "format"),
    ]
    assert len(items) == 5
    with pytest.raises(InvalidData, match="wizard"):
        list(read_samples(path))


@pytest.mark.parametrize("reading", [Reading(), Reading(format="openai")])
def test_files_with_nothing_in_them(tmp_path: Path, reading: Reading) -> None:
    (tmp_path / "a.jsonl").touch()
    assert [error.kind for error in errors(tmp_path / "a.jsonl", reading)] == ["empty"]
    assert [error.kind for error in errors(tmp_path / "b.jsonl", reading)] == ["file"]


def test_weights_repeat_and_thin_out(tmp_path: Path) -> None:
    often = write_lines(tmp_path / "a.jsonl", [{"text": "often"}] * 10)
    rarely = write_lines(tmp_path / "b.jsonl", [{"text": "rarely"}] * 1000)
    sources = [Source(often, 3.0), Source(rarely, 0.25)]
    texts = [sample.text for sample in weighted_samples(sources) if isinstance(sample, PlainText)]
    assert texts.count("often") == 30 and 200 < texts.count("rarely") < 300
    assert list(weighted_samples(sources, seed=3)) == list(weighted_samples(sources, seed=3))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = [{"role": "user", "content": "x" * 1000}, {"role": "assistant", "content": "y" * 999}]
    line = json.dumps({"messages": long})
    path.write_text(f"{line}\n" * 3000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_samples(path)) == 3000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 6_000_000 > 6 * peak
