"""Names are names: nothing that could be a path passes, and links out of the store are not followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.adapters.names import check_name, inside, parse_id
from tunechat.serve.contract.errors import InvalidRequest, NotFound


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0", "a" * 65, "-a", "_a", "a b", "a\n", "ａ", "é", "a@1", "~"],
)
def test_refuses(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(name)


@given(st.text())
def test_what_passes_stays_one_part_of_a_path(name: str) -> None:
    try:
        check_name(name)
    except InvalidRequest:
        return
    assert name.isascii() and Path("/root", name).parts == ("/", "root", name) and not name.startswith(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("support", ("support", None)), ("support@3", ("support", 3)), ("a.b-c_1@12", ("a.b-c_1", 12))],
)
def test_parses(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_id(text) == expected


@pytest.mark.parametrize(
    "text", ["support@", "support@0", "support@-1", "support@1@2", "@1", "support@x", "a@1\n", "a@٣"]
)
def test_refuses_versions(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_id(text)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "sideways").symlink_to(tmp_path / "root" / "real")
    assert inside(tmp_path / "root", "real", "1") == tmp_path / "root" / "real" / "1"
    for name in ("link", "sideways"):
        with pytest.raises(NotFound):
            inside(tmp_path / "root", name, "1")
