"""Which reader a name leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.files.reading import is_readable, read_records
from tunechat.trainer.data.record import Record


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("a.JSONL", '{"n": 1}', {"n": 1}),
        ("a.csv", "n\n1", {"n": "1"}),
        ("a.md", "# n", {"text": "# n"}),
        ("a.txt", "n", {"text": "n"}),
    ],
)
def test_reads_by_the_name(tmp_path: Path, name: str, text: str, value: object) -> None:
    path = tmp_path / name
    path.write_text(text)
    (record,) = read_records(path)
    assert isinstance(record, Record) and record.value == value


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.xls", "save it as .xlsx"), ("a.parquet.gz", "kinds are"), ("a", "kinds are"), ("b.zip", "unpack")],
)
def test_other_names_are_refused_with_advice(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).touch()
    assert not is_readable(tmp_path / name)
    with pytest.raises(InvalidData, match=told):
        read_records(tmp_path / name)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(InvalidData, match="no such file"):
        read_records(tmp_path)
