"""The bytes and lines of a file, however long it is and whatever its encoding claims."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ....serve.contract.errors import InvalidData

# Characters of one record; no example for training is longer than a context.
MAX_RECORD = 16 << 20
_CHUNK = 1 << 16
_UTF8 = codecs.BOM_UTF8
_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MEND = "save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its end, and its number from 1."""

    text: str
    number: int


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of `path` behind its mark of UTF-8, unpacked where its name ends in .gz.

    Raises InvalidData for another Unicode encoding by its mark, for a broken gzip file and for what is no file.
    """
    if not path.is_file():
        raise InvalidData("there is no such file", "check the path", file=str(path), kind="file")
    with path.open("rb") as raw:
        stream: IO[bytes] = raw
        if path.suffix.lower() == ".gz":
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb"))
        try:
            start = stream.read(4)
            for mark, name in _OTHERS.items():
                if start.startswith(mark):
                    raise InvalidData(f"this is {name}", _MEND, file=str(path), line=1, kind="encoding")
            stream.seek(len(_UTF8) if start.startswith(_UTF8) else 0)
            yield stream
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InvalidData(
                f"the gzip file is broken: {error}", "compress it again", file=str(path), kind="file"
            ) from error


def lines_of(stream: IO[bytes], file: str) -> Iterator[Line | InvalidData]:
    """The lines, decoded. A line that is too long or not UTF-8 is an error of its own; the next one is read."""
    number = 0
    while data := stream.readline(MAX_RECORD + 1):
        number += 1
        if len(data) > MAX_RECORD and not data.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                continue
            yield too_long(file, number)
            continue
        try:
            yield Line(data.decode("utf-8"), number)
        except UnicodeDecodeError as error:
            yield not_utf8(file, number, error)


def chunks_of(stream: IO[bytes], file: str) -> Iterator[str]:
    """The text in pieces of some 64 KiB. Raises InvalidData with the line where it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    while True:
        data = stream.read(_CHUNK)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise not_utf8(file, line, error) from error
        line += text.count("\n")
        if text:
            yield text
        if not data:
            return


def too_long(file: str, line: int) -> InvalidData:
    """The error for a record beyond MAX_RECORD."""
    return InvalidData(
        f"one record has more than {MAX_RECORD >> 20} MiB", "split it", file=file, line=line, kind="size"
    )


def not_utf8(file: str, line: int, error: UnicodeDecodeError) -> InvalidData:
    """The error for bytes that are no UTF-8, with the first of them."""
    start = error.object.rfind(b"\n", 0, error.start) + 1
    what = f"byte {error.start - start + 1} of the line (0x{error.object[error.start]:02x}) is not UTF-8"
    return InvalidData(what, _MEND, file=file, line=line, kind="encoding")
