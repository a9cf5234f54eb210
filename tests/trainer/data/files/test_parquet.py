"""Parquet files: rows without the nulls that columns of one type force on them."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.trainer.data.files.parquet import read_parquet
from tunechat.trainer.data.record import Record


def test_rows_without_nulls(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "weight": 0}]},
        {"messages": [{"role": "user", "content": "ho"}], "tools": '[{"a": 1.50}]'},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=None), path)
    first, second = read_parquet(path)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.value == rows[0]
    assert second.value["messages"] == [{"role": "user", "content": "ho"}] and second.place.line == 2


def test_text_of_json_is_kept_to_the_character(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"tools": ['[{"a": 1.50}]']}), path)
    (record,) = read_parquet(path)
    assert isinstance(record, Record) and record.value == {"tools": '[{"a": 1.50}]'}


def test_what_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InvalidData, match=r"a\.parquet: this is no readable parquet file"):
        list(read_parquet(path))


def test_without_pyarrow_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"tunechat\[parquet\]"):
        list(read_parquet(tmp_path / "a.parquet"))
