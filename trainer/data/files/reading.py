"""The records of a file of any kind that can be read."""

from __future__ import annotations

from pathlib import Path

from ....serve.contract.errors import InvalidData
from ..record import Records
from .json_lines import read_json_file
from .parquet import read_parquet
from .prose import read_prose
from .spreadsheet import read_spreadsheet
from .tables import read_table

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".txt", ".text", ".md", ".markdown")
_PACKED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".text", ".md", ".markdown")
_ADVICE = {".xls": "save it as .xlsx", ".arrow": "save it as .parquet or .jsonl", ".zip": "unpack it"}


def suffix_of(path: Path) -> str:
    """What kind of file the name says it is, whether packed or not."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if name.endswith(".gz") else path.suffix.lower()


def is_readable(path: Path) -> bool:
    """Whether the name is one of a file that can be read."""
    suffixes = _PACKED if path.name.lower().endswith(".gz") else SUFFIXES
    return suffix_of(path) in suffixes


def read_records(path: Path, *, sheet: str | None = None) -> Records:
    """The records, one at a time; memory does not grow with the file. `sheet` is the one of a spreadsheet.

    Raises InvalidData for what makes the whole file unreadable; errors about one line come between the records.
    """
    if not path.is_file():
        raise InvalidData("there is no such file", "check the path", file=str(path), kind="file")
    if not is_readable(path):
        advice = _ADVICE.get(suffix_of(path), f"the kinds are {', '.join(SUFFIXES)}")
        raise InvalidData("files of this name are not read", advice, file=str(path), kind="file")
    match suffix_of(path):
        case ".jsonl" | ".ndjson" | ".json":
            return read_json_file(path)
        case ".csv" | ".tsv":
            return read_table(path)
        case ".parquet":
            return read_parquet(path)
        case ".xlsx":
            return read_spreadsheet(path, sheet)
        case _:
            return read_prose(path)
