"""JSON files: by lines, as one array, as values one behind another, whatever they are called."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.files import json_lines, opening
from tunechat.trainer.data.files.json_lines import read_json_file
from tunechat.trainer.data.record import Record


def read(path: Path) -> list[tuple[int, Any]]:
    """Places and values; errors as their texts."""
    return [
        (item.place.line, item.value) if isinstance(item, Record) else (item.line, item.what)
        for item in read_json_file(path)
    ]


def written(tmp_path: Path, text: str, name: str = "a.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson"])
@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1}\n{"n": 2}\n',
        '{"n": 1}\r\n{"n": 2}',
        '[{"n": 1}, {"n": 2}]',
        '\n [\n  {"n": 1},\n  {\n "n": 2}\n]\n\n',
        '\ufeff{"n": 1}\n{"n": 2}\n',
        '{\n  "n": 1\n}\n{\n  "n": 2\n}\n',
    ],
)
def test_what_it_is_is_seen_not_named(tmp_path: Path, name: str, text: str) -> None:
    assert [value for _, value in read(written(tmp_path, text, name))] == [{"n": 1}, {"n": 2}]


def test_places_are_lines_where_there_are_lines_and_numbers_in_arrays(tmp_path: Path) -> None:
    assert [line for line, _ in read(written(tmp_path, '{"n": 1}\n\n{"n": 2}\n'))] == [1, 3]
    assert [line for line, _ in read(written(tmp_path, '[{"n": 1},\n\n{"n": 2}]'))] == [1, 2]


def test_a_wrong_line_does_not_end_the_file(tmp_path: Path) -> None:
    found = read(written(tmp_path, '{"n": 1}\n{"n": \n{"n": NaN}\n{"n": 4}\n'))
    assert [line for line, _ in found] == [1, 2, 3, 4]
    assert "no JSON" in found[1][1] and "NaN" in found[2][1] and found[3][1] == {"n": 4}


def test_a_line_of_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": "ok"}\n{"n": "caf\xe9"}\n{"n": "ok"}\n')
    items = list(read_json_file(path))
    error = items[1]
    assert isinstance(error, InvalidData) and isinstance(items[2], Record)
    assert (error.line, error.kind) == (2, "encoding")
    assert "byte 11 of the line (0xe9)" in error.what and "UTF-8" in error.mend


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "utf-16-be"])
def test_other_unicode_encodings_are_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"n": 1}\n'.encode(codec))
    with pytest.raises(InvalidData, match="UTF-") as raised:
        list(read_json_file(path))
    assert raised.value.kind == "encoding"


def test_wrong_bytes_in_an_array_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"n": 1},\n{"n": 2},\n{"n": "\xff"}]')
    with pytest.raises(InvalidData, match=r"a\.json:3: byte 8"):
        list(read_json_file(path))


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_RECORD", 1000)
    long = json.dumps({"n": "x" * 200_000})
    found = read(written(tmp_path, f'{{"n": 1}}\n{long}\n{{"n": 3}}\n'))
    assert [line for line, _ in found] == [1, 2, 3]
    assert "MiB" in found[1][1]


def test_an_array_item_that_is_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_RECORD", 1000)
    with pytest.raises(InvalidData) as raised:
        read(written(tmp_path, '[{"n": 1}, {"n": "' + "x" * 500_000))
    assert raised.value.kind == "size" and raised.value.line == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"n": 1}, {"n": 2}', "not closed"),
        ('[{"n": 1} {"n": 2}]', "where `,` or `\\]` must"),
        ('[{"n": 1},]', "record 2 is no JSON"),
        ('[{"n": 1}] x', "more behind the end"),
        ('[{"n": 1, "n": 2}]', "stands twice"),
        ("[" * 100_000, "nested"),
    ],
)
def test_broken_arrays(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidData, match=told):
        read(written(tmp_path, text))


def test_empty_files_have_no_records(tmp_path: Path) -> None:
    for text in ("", "\n\n", "[]", " [ ] "):
        assert read(written(tmp_path, text)) == []


def test_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n{"n": 2}\n'))
    assert [value for _, value in read(path)] == [{"n": 1}, {"n": 2}]
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 9999)[:-20])
    with pytest.raises(InvalidData, match="gzip file is broken"):
        read(path)
    path.write_bytes(b'{"n": 1}\n')
    with pytest.raises(InvalidData, match="gzip file is broken"):
        read(path)


@settings(max_examples=30)
@given(
    st.lists(st.dictionaries(st.text(), st.text(max_size=9) | st.floats(-9, 9) | st.lists(st.integers()))), st.data()
)
def test_arrays_are_read_whatever_the_pieces(tmp_path_factory: Any, values: list[Any], data: st.DataObject) -> None:
    text = json.dumps(values, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    size = data.draw(st.integers(1, 7))
    path = tmp_path_factory.mktemp("a") / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_CHUNK", size)
        assert [value for _, value in read(path)] == values


@pytest.mark.parametrize("as_array", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, as_array: bool) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "x" * 2000})
    with path.open("w") as file:
        file.write("[" if as_array else "")
        for index in range(4000):
            file.write((",\n" if as_array and index else "") + line + ("" if as_array else "\n"))
        file.write("]" if as_array else "")
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_json_file(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert path.stat().st_size > 8_000_000 > 8 * peak
