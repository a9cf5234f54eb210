"""Rows of .xlsx files, as objects under the names of the first row."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....serve.contract.errors import InvalidData
from ..record import Records
from ..sample import Place
from .tables import column_names, row_record

# Unpacked bytes: strings of a workbook are held in memory, and a small file can unpack to any size.
MAX_UNPACKED = 1 << 30
MAX_STRINGS = 256 << 20
# What zipfile, the parsers of XML and openpyxl raise for files that are not as they should be.
_BROKEN: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, SyntaxError, RuntimeError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)
_MEND = "save it anew as .xlsx, or as .csv"


def read_spreadsheet(path: Path, sheet: str | None = None) -> Records:
    """The records of one sheet: `sheet`, or the first with anything in it. Places are rows as the program counts them.

    Formulas give the values that were last computed.
    """
    file = str(path)
    with _workbook(path) as book:
        names: list[str] = []
        for cells in _sheets(book, sheet, file):
            for number, values in enumerate(cells, 1):
                row = [_text(value) for value in values]
                if not any(cell.strip() for cell in row):
                    continue
                if names:
                    yield row_record(names, row, Place(file, number))
                else:
                    names = column_names(row, file, number)
            if names:
                return
    raise InvalidData("no sheet has any rows", "write questions and answers into one", file=file, kind="file")


def _sheets(book: Any, sheet: str | None, file: str) -> Iterator[Any]:
    if sheet is not None and sheet not in book.sheetnames:
        known = ", ".join(book.sheetnames[:20])
        raise InvalidData(f"there is no sheet {sheet!r}", f"the sheets are: {known}", file=file, kind="file")
    for found in book.worksheets:
        if sheet in (None, found.title):
            # Files say how large sheets are, and may be wrong.
            found.reset_dimensions()
            yield found.iter_rows(values_only=True)


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    import warnings

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _check_size(path)
    try:
        with warnings.catch_warnings():
            # Styles and filters that openpyxl does not know have no bearing on the cells.
            warnings.simplefilter("ignore", UserWarning)
            book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
            try:
                yield book
            finally:
                book.close()
    except (*_BROKEN, InvalidFileException) as error:
        told = " ".join(str(error).split())[:200]
        raise InvalidData(f"this is no readable spreadsheet: {told}", _MEND, file=str(path), kind="file") from error


def _check_size(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
    except _BROKEN as error:
        raise InvalidData(f"this is no .xlsx file: {error}", _MEND, file=str(path), kind="file") from error
    if sum(sizes.values()) > MAX_UNPACKED or sizes.get("xl/sharedStrings.xml", 0) > MAX_STRINGS:
        raise InvalidData("the spreadsheet is too large", "save it as .csv", file=str(path), kind="size")


def _text(value: object) -> str:
    """A cell as one reads it: 3, not 3.0."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
