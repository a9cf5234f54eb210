"""Numbers with suffixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.setting_kinds import parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1_000", 1000),
        ("32K", 32768),
        ("32k", 32000),
        ("25.6k", 25600),
        ("0.5K", 512),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("2GB", 2 * 10**9),
        (" 8 M ", 8 << 20),
        (7, 7),
    ],
)
def test_quantities(text: object, number: int) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "K", "1.5", "-1", "1e9", "0x10", "1.0001k", "٣", "1 2", "9" * 50, None, True, 1.0, []]
)
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="should be a whole number"):
        parse_quantity(text)


@given(st.integers(0, 10**12))
def test_quantity_of_a_number_is_the_number(number: int) -> None:
    assert parse_quantity(str(number)) == parse_quantity(f"{number}") == number
    assert parse_quantity(f"{number}K") == number * 1024


@given(st.text(max_size=50))
def test_any_text_is_a_quantity_or_a_plain_error(text: str) -> None:
    try:
        assert parse_quantity(text) >= 0
    except ValueError as error:
        assert "should be a whole number" in str(error)
