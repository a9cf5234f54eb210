"""Curves of braille dots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.commands.curve import curve, is_drawable, smoothed

Y = st.floats(-1e6, 1e6)
SERIES = st.lists(Y, max_size=50).map(lambda values: list(enumerate(values, 1)))


def heights(rows: list[str], width: int) -> list[int]:
    """For each column, the topmost row with a dot in it."""
    cells = [row.partition("┤")[2].ljust(width, "\u2800") for row in rows[:-1]]
    return [next(y for y, row in enumerate(cells) if row[x] != "\u2800") for x in range(width)]


@given(SERIES, SERIES)
def test_everything_stays_inside_its_box(line: list[tuple[int, float]], marks: list[tuple[int, float]]) -> None:
    rows = curve(line, marks, width=20, height=5)
    assert len(rows) == (6 if line or marks else 0)
    for row in rows[:-1]:
        inside = row.partition("┤")[2]
        assert len(inside) <= 20 and all(0x2800 <= ord(cell) <= 0x28FF or cell == "×" for cell in inside)


def test_a_falling_loss_falls_from_one_corner_to_the_other() -> None:
    rows = curve([(1, 3.0), (50, 2.0), (100, 1.0)], width=30, height=8)
    assert rows[0].startswith("3 ┤") and rows[7].startswith("1 ┤") and rows[8].split() == ["└1", "100"]
    tops = heights(rows, 30)
    assert tops[0] == 0 and tops[-1] == 7 and tops == sorted(tops)


def test_marks_stand_on_their_values() -> None:
    rows = curve([(1, 2.0), (3, 0.0)], [(1, 0.0), (3, 2.0)], width=10, height=4)
    assert rows[3].partition("┤")[2][0] == "×" and rows[0].partition("┤")[2][9] == "×"


def test_one_point_is_drawn_in_the_middle() -> None:
    rows = curve([(7, 2.5)], width=10, height=5)
    assert rows[2] == "2.5 ┤⠁" or rows[2].startswith("2.5 ┤")
    assert rows[-1].strip() == "└7"


@given(SERIES, st.integers(1, 20))
def test_smoothing_keeps_the_mean_and_the_end(points: list[tuple[int, float]], most: int) -> None:
    found = smoothed(points, most)
    assert len(found) <= most
    if points:
        assert found[-1][0] == points[-1][0]
        low, high = min(y for _, y in points), max(y for _, y in points)
        assert all(low - 1 <= y <= high + 1 for _, y in found)


def test_terminals_without_the_characters_are_noticed() -> None:
    assert is_drawable("utf-8")
    assert not any(map(is_drawable, ("ascii", "latin-1", None, "no such encoding")))
