"""Rows of .csv and .tsv files, as objects under the names of the first row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from ....serve.contract.errors import InvalidData
from ..record import Record, Records
from ..sample import Place
from .opening import MAX_RECORD, Line, lines_of, opened

_MEND = "put cells that hold quotes or line ends between double quotes, and write quotes inside them twice"


def read_table(path: Path) -> Records:
    """The records of a table. Places are the lines on which rows begin."""
    file = str(path)
    # A limit of the whole process; the standard one, 128 KiB, cuts no cell but refuses long answers.
    csv.field_size_limit(MAX_RECORD)
    with opened(path) as stream:
        lines = _Lines(lines_of(stream, file))
        first = next(lines, "")
        rows = csv.reader(chain([first], lines), delimiter=_delimiter(path, first), strict=True)
        names = column_names(_next(rows, file, 1) or [], file, 1)
        while True:
            line = lines.number + 1
            row = _next(rows, file, line)
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            yield row_record(names, row, Place(file, line))


def column_names(cells: Sequence[str], file: str, line: int) -> list[str]:
    """The names in the first row. Raises InvalidData where there are none, or one twice."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not any(names):
        raise InvalidData(
            "the first row has no names of columns", "write them there", file=file, line=line, kind="file"
        )
    twice = next((name for index, name in enumerate(names) if name and name in names[:index]), None)
    if twice is not None:
        raise InvalidData(
            f"two columns are named {twice!r}", "rename one", file=file, line=line, field=twice, kind="file"
        )
    return names


def row_record(names: Sequence[str], row: Sequence[str], place: Place) -> Record | InvalidData:
    """The row as an object; cells that it lacks are empty. Cells without a name are an error."""
    if any(cell.strip() for cell in row[len(names) :]):
        what = f"the row has {len(row)} cells, the first row only {len(names)} names"
        return InvalidData(what, _MEND, file=place.file, line=place.line, kind="file")
    cells = [*row, *[""] * (len(names) - len(row))]
    return Record({name: cell for name, cell in zip(names, cells, strict=False) if name}, place)


def _delimiter(path: Path, first: str) -> str:
    """The character that the first row has most of."""
    if path.name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    return max(",;\t", key=first.count)


def _next(rows: Iterator[list[str]], file: str, line: int) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise InvalidData(f"this row cannot be read: {error}", _MEND, file=file, line=line, kind="file") from error


class _Lines:
    """The text of the lines, and the number of the last one. Raises what cannot be read: quotes may lie open."""

    def __init__(self, lines: Iterator[Line | InvalidData]) -> None:
        self._lines = lines
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if isinstance(line, InvalidData):
            raise line
        self.number = line.number
        return line.text
