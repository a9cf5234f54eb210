"""Curves in a terminal: points as dots of braille characters, two across and four down in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 64, 12
_BLANK = 0x2800
# The bit of each dot by column and row, as Unicode numbers them.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def curve(line: Points, marks: Points = (), *, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The points of `line`, joined, and `marks` as crosses, over one another, in `height` rows and a row of the axis.

    Every row begins with the value at its height where there is one to tell. Empty when there are no points.
    """
    points = [*line, *marks]
    if not points:
        return []
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.0
        down = (high - y) / (high - low) if high > low else 0.5
        return round(across * (2 * width - 1)), round(down * (4 * height - 1))

    cells = [[_BLANK] * width for _ in range(height)]
    for x, y in _joined([place(*point) for point in line]):
        cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    rows = [[chr(cell) for cell in row] for row in cells]
    for x, y in (place(*mark) for mark in marks):
        rows[y // 4][x // 2] = "×"
    told = {0: high, height - 1: low} if high > low else {height // 2: high}
    labels = [f"{told[row]:.4g}" if row in told else "" for row in range(height)]
    margin = max(map(len, labels))
    axis, end = f"{x_low:g}", f"{x_high:g}" if x_high > x_low else ""
    return [
        *(f"{label:>{margin}} ┤{''.join(row)}".rstrip(chr(_BLANK)) for label, row in zip(labels, rows, strict=True)),
        f"{'':>{margin}} └{axis}{end:>{max(width - len(axis), 0)}}".rstrip(),
    ]


def is_drawable(encoding: str | None) -> bool:
    """Whether text of this encoding can hold a curve."""
    try:
        f"┤└×{chr(_BLANK)}".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def smoothed(points: Points, most: int) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its neighbours: losses of single steps jump about."""
    size = max(1, -(-len(points) // most))
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _joined(dots: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots with straight lines between them."""
    if dots:
        yield dots[0]
    for (x, y), (to_x, to_y) in pairwise(dots):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(1, steps + 1):
            yield x + round((to_x - x) * step / steps), y + round((to_y - y) * step / steps)
