"""What a bare name means, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.adapters.alias import ALIAS, Alias, read_alias, write_alias
from tunechat.serve.contract.errors import TunechatError


def test_written_and_read(tmp_path: Path) -> None:
    assert read_alias(tmp_path) == Alias()
    alias = Alias().moved(1).moved(2)
    write_alias(tmp_path, alias)
    assert read_alias(tmp_path) == alias and alias.current == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"history": "x"}', '{"format": 2}'])
def test_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / ALIAS).write_text(content)
    with pytest.raises(TunechatError) as caught:
        read_alias(tmp_path)
    assert caught.value.code == "store_damaged"


@given(st.lists(st.integers(1, 5), max_size=150), st.sets(st.integers(1, 5)))
def test_history(moves: list[int], removed: set[int]) -> None:
    alias = Alias()
    for number in moves:
        alias = alias.moved(number)
        assert alias.current == number
    alias = alias.without(removed)
    assert not removed & {*alias.history} and len(alias.history) <= 100
    assert all(before != after for before, after in zip(alias.history, alias.history[1:], strict=False))
    assert alias.last == max([*moves, *removed], default=0)


def test_files_from_before_names_had_owners(tmp_path: Path) -> None:
    (tmp_path / ALIAS).write_text('{"format": 1, "last": 2, "history": [1, 2], "pinned": [1]}')
    assert read_alias(tmp_path) == Alias(last=2, history=(1, 2), pinned=(1,), owner="", labels={})


def test_labels_go_with_their_versions(tmp_path: Path) -> None:
    alias = Alias(owner="a").labelled("x", 1).labelled("y", 1).labelled("z", 2).labelled("", 9)
    assert (alias.labels, alias.last, alias.current) == ({"x": 1, "y": 1, "z": 2}, 9, None)
    assert alias.labelled("x", 2).labels == {"x": 2, "y": 1, "z": 2}
    write_alias(tmp_path, alias.without({1}))
    assert read_alias(tmp_path) == Alias(owner="a", labels={"z": 2}, last=9)
