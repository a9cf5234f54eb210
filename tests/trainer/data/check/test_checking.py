"""A whole check: what it counts, what it finds, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunechat.serve.contract.errors import InvalidSample
from tunechat.tests.trainer.data.writing import call, result, tool, write_lines
from tunechat.trainer.data.check import report as reports
from tunechat.trainer.data.check.checking import check
from tunechat.trainer.data.check.lengths import Length
from tunechat.trainer.data.files.sources import Source
from tunechat.trainer.data.sample import Sample

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def chats(*questions: str) -> list[dict[str, object]]:
    return [{"messages": [{**Q, "content": question}, A]} for question in questions]


def test_counts_what_is_there(tmp_path: Path) -> None:
    tools = {"messages": [Q, call("f", "{}"), result("1"), A], "tools": [tool("f")]}
    one = write_lines(tmp_path / "a.jsonl", [*chats("1", "2"), tools])
    two = tmp_path / "b.txt"
    two.write_text("Once upon a time.")
    told: list[int] = []
    found = check(
        [Source(one), Source(two, 2.0)], measure=lambda sample: Length(100, 10), max_length=100, report=told.append
    )
    assert found.ok and found.problems.counts == {}
    assert (found.conversations, found.texts, found.pairs, found.with_tools, found.calls) == (3, 1, 0, 1, 1)
    assert found.turns.most == 2 and found.learned == 40
    assert found.tokens is not None and found.tokens.total == 400
    assert [(file.format, file.samples, file.wrong, file.weight) for file in found.files] == [
        ("openai", 3, 0, 1.0),
        ("text", 1, 0, 2.0),
    ]
    assert json.loads(json.dumps(found.as_json()))["tokens"]["histogram"] == [{"up_to": 128, "count": 4}]


def test_finds_duplicates_and_overlap(tmp_path: Path) -> None:
    training = write_lines(tmp_path / "a.jsonl", chats("1", "2", "1", " 2!"))
    held_out = write_lines(tmp_path / "b.jsonl", chats("2?", "3"))
    found = check([Source(training)], [Source(held_out)])
    assert found.problems.counts == {"duplicate": 1, "near_duplicate": 1, "overlap": 1}
    assert (found.problems.errors, found.problems.warnings) == (1, 2) and not found.ok
    duplicate, near, overlap = found.problems.kept
    assert duplicate.line == 3 and f"{training}:1" in duplicate.what
    assert near.line == 4 and (overlap.file, overlap.line) == (str(held_out), 1)


def test_duplicates_alone_are_no_reason_not_to_train(tmp_path: Path) -> None:
    assert check([Source(write_lines(tmp_path / "a.jsonl", chats("1", "1")))]).ok


def test_what_does_not_fit_is_found_in_validation_too(tmp_path: Path) -> None:
    training = write_lines(tmp_path / "a.jsonl", chats("1"))
    held_out = write_lines(tmp_path / "b.jsonl", chats("2"))
    found = check([Source(training)], [Source(held_out)], measure=lambda sample: Length(50, 5), max_length=40)
    assert found.problems.counts == {"too_long": 2}
    assert found.tokens is not None and found.tokens.count == 1


def test_what_is_wrong_by_itself_is_not_measured(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, {**A, "content": ""}]}, *chats("1")])

    def refuses(sample: Sample) -> Length:
        raise InvalidSample("a.jsonl: no", param="messages[1]")

    found = check([Source(path)], measure=refuses)
    assert found.problems.counts == {"empty_answer": 1, "not_learnable": 1}
    assert found.files[0].wrong == 2


def test_files_that_cannot_be_read_are_in_the_report(tmp_path: Path) -> None:
    strange = write_lines(tmp_path / "a.jsonl", [{"x": 1}])
    found = check([Source(strange), Source(tmp_path / "none.jsonl")])
    assert found.problems.counts == {"format": 1, "file": 1}
    assert [file.wrong for file in found.files] == [1, 1]


def test_problems_are_counted_beyond_those_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_KEPT", 3)
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, {**A, "content": ""}]}] * 9)
    found = check([Source(path)])
    assert found.problems.counts == {"empty_answer": 9, "duplicate": 8}
    assert [problem.kind for problem in found.problems.kept] == [*["empty_answer"] * 3, *["duplicate"] * 3]


def test_warnings_do_not_crowd_errors_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_KEPT", 3)
    training = write_lines(tmp_path / "a.jsonl", chats(*"1111111"))
    held_out = write_lines(tmp_path / "b.jsonl", chats("1"))
    assert "overlap" in {problem.kind for problem in check([Source(training)], [Source(held_out)]).problems.kept}
