from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.errors import ConfigError
from tunechat.tools.mcp.pins import Pins, fingerprint


def test_the_first_sight_approves_and_later_changes_do_not(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "deep" / "pins.json")
    assert pins.unapproved("s", {"a": "1", "b": "2"}) == set()
    assert pins.unapproved("s", {"a": "1"}) == set()
    assert pins.unapproved("s", {"a": "9", "b": "2", "c": "3"}) == {"a", "c"}
    assert Pins(tmp_path / "deep" / "pins.json").unapproved("s", {"a": "9"}) == {"a"}
    pins.approve("s", {"a": "9"})
    assert pins.unapproved("s", {"a": "9", "b": "2"}) == {"b"}
    assert pins.unapproved("other", {"a": "5"}) == set()


@pytest.mark.parametrize("content", ["{", "[]", '{"s": 1}', ""])
def test_a_damaged_file_approves_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "pins.json").write_text(content)
    with pytest.raises(ConfigError, match="damaged"):
        Pins(tmp_path / "pins.json").unapproved("s", {"a": "1"})


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=2, max_size=5))
def test_the_fingerprint_is_of_the_content_not_its_order(schema: dict[str, object]) -> None:
    turned = dict(reversed(schema.items()))
    assert fingerprint("a", "b", schema) == fingerprint("a", "b", turned)
    assert fingerprint("a", "b", {**schema, "more": 1}) != fingerprint("a", "b", {**schema, "more": 2})
    assert fingerprint("a", "b", schema) != fingerprint("a", "c", schema)
