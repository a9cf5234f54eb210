"""JSON from files: a value a line, one array, or values one behind another, told apart by looking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ....serve.contract.errors import InvalidData
from ..json_text import BadJson, read_json, read_value
from ..record import Record, Records
from ..sample import Place
from .opening import MAX_RECORD, chunks_of, lines_of, opened, too_long

_MEND = "mend it or leave it out; each line, or each item of one array, must be a JSON object"
_BLANK = " \t\r\n"


def read_json_file(path: Path) -> Records:
    """The records of a .jsonl or .json file.

    Files that begin with `[` are one array, whatever their name: its items are the records, and places count them.
    """
    if _is_by_lines(path):
        yield from _by_lines(path)
    else:
        yield from _values(path)


def _is_by_lines(path: Path) -> bool:
    """Whether each line is a value. An object that is spread over lines is not, except under a name that says lines."""
    with opened(path) as stream:
        start = stream.read(1 << 16).lstrip()
        if start.startswith(b"["):
            return False
        name = path.name.lower().removesuffix(".gz")
        if name.endswith((".jsonl", ".ndjson")):
            # `{` alone on the first line is how tools write objects for people to read.
            return start.split(b"\n", 1)[0].strip() != b"{"
        line = start.split(b"\n", 1)[0].decode("utf-8", "replace")
        try:
            read_json(line)
        except BadJson:
            return len(start) >= 1 << 16 and b"\n" not in start
        return True


def _by_lines(path: Path) -> Records:
    file = str(path)
    with opened(path) as stream:
        for line in lines_of(stream, file):
            if isinstance(line, InvalidData):
                yield line
                continue
            if not line.text.strip():
                continue
            try:
                yield Record(read_json(line.text.strip()), Place(file, line.number))
            except BadJson as error:
                yield InvalidData(str(error), _MEND, file=file, line=line.number, kind="json")


def _values(path: Path) -> Records:
    """Records from an array, or from values with only white space between them; as much text is held as one takes."""
    file = str(path)
    with opened(path) as stream:
        text = _Text(chunks_of(stream, file))
        is_array = text.skip_blanks() == "["
        if is_array:
            text.take(1)
        number = 0
        while True:
            here = text.skip_blanks()
            if here == "" and not is_array:
                return
            if here == "]" and is_array and number == 0:
                break
            number += 1
            yield Record(_value(text, file, number), Place(file, number))
            if is_array and not _goes_on(text, file, number):
                break
        text.take(1)
        if text.skip_blanks():
            raise InvalidData("there is more behind the end of the array", _MEND, file=file, kind="json")


def _value(text: _Text, file: str, number: int) -> object:
    while True:
        try:
            value, end = read_value(text.held, text.start)
        except json.JSONDecodeError as error:
            if len(text.held) - text.start > MAX_RECORD:
                raise too_long(file, number) from error
            if text.more():
                continue
            raise InvalidData(
                f"record {number} is no JSON: {error.msg}", _MEND, file=file, line=number, kind="json"
            ) from error
        except BadJson as error:
            raise InvalidData(f"record {number}: {error}", _MEND, file=file, line=number, kind="json") from error
        # A number may go on in what was not read yet.
        if end == len(text.held) and text.more():
            continue
        text.start = end
        return value


def _goes_on(text: _Text, file: str, number: int) -> bool:
    here = text.skip_blanks()
    if here == ",":
        text.take(1)
        return True
    if here == "]":
        return False
    what = f"behind record {number} stands {here!r} where `,` or `]` must" if here else "the array is not closed"
    raise InvalidData(what, "write the array anew", file=file, line=number, kind="json")


class _Text:
    """Text that comes in pieces. `held[start:]` is what is not used yet."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.held = ""
        self.start = 0

    def more(self) -> bool:
        """Read at least as much again as is held: trying a value again and again then stays linear."""
        pieces, size, wanted = [self.held[self.start :]], 0, max(len(self.held) - self.start, 1)
        for chunk in self._chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size >= wanted:
                break
        self.held, self.start = "".join(pieces), 0
        return size > 0

    def take(self, count: int) -> None:
        self.start += count

    def skip_blanks(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            while self.start < len(self.held) and self.held[self.start] in _BLANK:
                self.start += 1
            if self.start < len(self.held):
                return self.held[self.start]
            if not self.more():
                return ""
