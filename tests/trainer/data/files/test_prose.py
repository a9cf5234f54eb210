"""Text files: whole where they are short, cut at paragraphs where they are long, with nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.files import prose
from tunechat.trainer.data.files.prose import read_prose
from tunechat.trainer.data.record import Record


def pieces(path: Path) -> list[tuple[int, str]]:
    records = [item for item in read_prose(path) if isinstance(item, Record)]
    return [(record.place.line, record.value["text"]) for record in records]


def test_a_short_file_is_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Title\n\nText.\n")
    assert pieces(path) == [(1, "# Title\n\nText.")]


def test_a_long_file_is_cut_at_empty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "MAX_PIECE", 12)
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\nthree\nfour\n")
    assert pieces(path) == [(1, "one"), (3, "two\nthree"), (5, "four")]


@settings(max_examples=30)
@given(st.text(alphabet="ab\n", max_size=60), st.integers(1, 20))
def test_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    path = tmp_path_factory.mktemp("a") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prose, "MAX_PIECE", size)
        found = pieces(path)
    assert "".join(piece for _, piece in found).replace("\n", "") == text.replace("\n", "")
    assert all(piece in text for _, piece in found)
    lines = text.split("\n")
    assert all(piece.strip("\n").split("\n")[0] in lines[line - 1 :] for line, piece in found)


def test_other_encodings_end_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n\x80\n")
    with pytest.raises(InvalidData, match=r"a\.txt:2"):
        list(read_prose(path))
