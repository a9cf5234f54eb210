"""Parquet files: rows without the nulls that columns of one type force on them."""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_values_that_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    day = datetime.date(2020, 1, 2)
    pq.write_table(pa.table({"a": [day], "b": [b"caf\xc3\xa9"], "c": [math.nan], "d": [[1.5, math.inf]]}), path)
    (record,) = read_parquet(path)
    assert isinstance(record, Record) and record.value == {"a": "2020-01-02", "b": "café", "d": [1.5, None]}


@settings(max_examples=100)
@given(st.data())
def test_damage_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("a") / "a.parquet"
    pq.write_table(pa.table({"text": ["once", "upon"] * 9}), path)
    raw = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(InvalidData):
        list(read_parquet(path))


def test_what_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InvalidData, match=r"a\.parquet: this is no readable parquet file"):
        list(read_parquet(path))


def test_without_pyarrow_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"tunechat\[parquet\]"):
        list(read_parquet(tmp_path / "a.parquet"))
