"""Tables of text: delimiters, quotes, names of columns, and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.files.tables import read_table
from tunechat.trainer.data.record import Record


def table(tmp_path: Path, text: str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'q,a\n"one, two",2\n'),
        ("a.csv", 'q;a\r\n"one, two";2\r\n'),
        ("a.csv", "q\ta\none, two\t2\n"),
        ("a.tsv", "q\ta\none, two\t2\n"),
        ("a.csv", '\ufeffq,a\n\n"one, two",2,,\n'),
    ],
)
def test_rows_come_under_the_names_of_the_first(tmp_path: Path, name: str, text: str) -> None:
    (record,) = read_table(table(tmp_path, text, name))
    assert isinstance(record, Record) and record.value == {"q": "one, two", "a": "2"}


def test_cells_may_hold_lines_and_long_answers(tmp_path: Path) -> None:
    long = "x" * 300_000
    path = table(tmp_path, f'q,a\n"first\nsecond","{long}"\nnext,""\n')
    first, second = read_table(path)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.value == {"q": "first\nsecond", "a": long} and first.place.line == 2
    assert second.value == {"q": "next", "a": ""} and second.place.line == 4


def test_a_row_with_too_many_cells_is_an_error_of_its_own(tmp_path: Path) -> None:
    first, wrong, last = read_table(table(tmp_path, "q,a\n1,2\n1,2,3\n4\n"))
    assert isinstance(wrong, InvalidData) and wrong.line == 3 and "3 cells" in wrong.what
    assert isinstance(first, Record) and isinstance(last, Record) and last.value == {"q": "4", "a": ""}


@pytest.mark.parametrize(
    ("text", "told", "line"),
    [
        ('q,a\n"open,2\n3,4\n', "cannot be read", 2),
        ('q,a\n"a"b,2\n', "cannot be read", 2),
        ("q,q\n1,2\n", "two columns are named 'q'", 1),
        (",,\n1,2\n", "no names of columns", 1),
        ("", "no names of columns", 1),
    ],
)
def test_what_cannot_be_read_names_its_line(tmp_path: Path, text: str, told: str, line: int) -> None:
    with pytest.raises(InvalidData, match=told) as raised:
        list(read_table(table(tmp_path, text)))
    assert raised.value.line == line


def test_other_encodings_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("q,a\nwie heißt du,x\n".encode("latin-1"))
    with pytest.raises(InvalidData, match=r"a\.csv:2: byte 8"):
        list(read_table(path))
