"""JSON of strangers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.adapters.json_file import parse_object, read_object
from tunechat.serve.contract.errors import UnsupportedFormat


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"\xff",
    ],
)
def test_refuses(text: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="the config"):
        parse_object(text, "the config")


def test_refuses_depth_and_size(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat):
        parse_object(b'{"a":' * 100_000, "x")
    (tmp_path / "a.json").write_bytes(b'{"a":1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(UnsupportedFormat, match="larger"):
        read_object(tmp_path / "a.json", limit=6)


@given(st.binary(max_size=50))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        value = parse_object(text, "x")
    except UnsupportedFormat:
        return
    assert isinstance(value, dict)
