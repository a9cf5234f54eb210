"""`tunechat data`, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from openpyxl import Workbook

from tunechat.tests.trainer.data.writing import write_lines

from .conftest import Done

Tunechat = Callable[..., Done]
Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.fixture
def medqa(tmp_path: Path) -> Path:
    book = Workbook()
    sheet = book.active
    for row in (["question", "drug type", "ANSWER"], ["how much?", "x", "two"], ["how often?", "y", "daily"]):
        sheet.append(row)
    path = tmp_path / "MedQA.xlsx"
    book.save(path)
    return path


def test_a_spreadsheet_is_checked_and_converted(tunechat: Tunechat, medqa: Path, tmp_path: Path) -> None:
    done = tunechat("data", "check", str(medqa), "--no-tokens")
    assert done.code == 0 and "question-answer" in done.out and "2 conversations" in done.out
    assert "nothing is wrong" in done.out
    out = tmp_path / "chats.jsonl"
    assert tunechat("data", "convert", str(medqa), str(out)).out == f"2 samples: {out}\n"
    first = json.loads(out.read_text().splitlines()[0])
    assert [message["content"] for message in first["messages"]] == ["how much?", "two"]
    again = tunechat("data", "convert", str(medqa), str(out))
    assert again.code == 1 and "--force" in again.err
    done = tunechat("data", "convert", str(medqa), str(out), "--force", "--answer", "drug type", "--json")
    assert json.loads(done.out) == {"path": str(out), "samples": 2, "left_out": 0}
    assert json.loads(out.read_text().splitlines()[1])["messages"][1]["content"] == "y"


def test_what_is_wrong_fails_scripts_and_names_the_line(tunechat: Tunechat, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, A]}, {"messages": [Q, {**A, "content": ""}]}])
    done = tunechat("data", "check", str(path), "--no-tokens")
    assert done.code == 1
    assert f"error: {path}:2: messages[1].content: the answer is empty; write the answer" in done.out
    found = json.loads(tunechat("data", "check", str(path), "--no-tokens", "--json").out)
    assert not found["ok"] and found["tokens"] is None
    assert found["problems"] == [
        {
            "severity": "error",
            "kind": "empty_answer",
            "file": str(path),
            "line": 2,
            "field": "messages[1].content",
            "what": "the answer is empty",
            "mend": "write the answer, or leave the record out",
        }
    ]


def test_validation_and_weights(tunechat: Tunechat, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, A]}])
    other = write_lines(tmp_path / "b.jsonl", [{"messages": [Q, A]}])
    done = tunechat("data", "check", f"{path}=2", "--validation", str(other), "--no-tokens", "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["by_kind"] == {"overlap": 1}
    assert found["files"][0]["weight"] == 2 and found["validation"][0]["samples"] == 1


def test_tokens_of_the_prepared_model(
    tunechat: Tunechat, default_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECHAT_HOME", str(default_home))
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, {**A, "content": "word " * 100}]}])
    done = tunechat("data", "check", str(path))
    assert done.code == 0 and "tokens a sample" in done.out and "█" in done.out
    done = tunechat("data", "check", str(path), "--max-length", "64", "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["by_kind"] == {"too_long": 1} and found["tokens"]["max"] > 100


def test_without_a_prepared_model_tokens_are_not_counted(tunechat: Tunechat, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, A]}])
    done = tunechat("data", "check", str(path))
    assert done.code == 0 and "tokens are not counted" in done.err and "tunechat pull" in done.err
    assert tunechat("data", "check", str(path), "--max-length", "64").code == 1
    assert tunechat("data", "check", str(path), "--max-length", "64", "--no-tokens").code == 2


def test_conversion_stops_at_what_is_wrong_unless_told(tunechat: Tunechat, tmp_path: Path) -> None:
    wrong = {"role": "x\x1b[31m", "content": ""}
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, A]}, {"messages": [wrong]}])
    out = tmp_path / "out.jsonl"
    done = tunechat("data", "convert", str(path), str(out))
    assert done.code == 1 and f"{path}:2" in done.err and not out.exists()
    done = tunechat("data", "convert", str(path), str(out), "--skip-invalid")
    assert done.code == 0 and "1 samples, 1 left out" in done.out and len(out.read_text().splitlines()) == 1
    strange = write_lines(tmp_path / "b.jsonl", [{"x\x1b[31m": 1}])
    for command in (("convert", str(strange), str(tmp_path / "b")), ("check", str(strange), "--no-tokens")):
        told = tunechat("data", *command)
        assert told.code == 1 and "x [31m" in told.err + told.out and "\x1b" not in told.err + told.out


def test_formats_are_listed_and_refused_by_name(tunechat: Tunechat, tmp_path: Path) -> None:
    names = [form["name"] for form in json.loads(tunechat("data", "formats", "--json").out)]
    assert "moss" in names and "sharegpt" in tunechat("data", "formats").out
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [Q, A]}])
    done = tunechat("data", "check", str(path), "--format", "chatml", "--no-tokens")
    assert done.code == 2 and "alpaca" in done.err
