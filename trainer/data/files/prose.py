"""Text and Markdown files in pieces of bounded size, cut where paragraphs end."""

from __future__ import annotations

from pathlib import Path

from ....serve.contract.errors import InvalidData
from ..record import Record, Records
from ..sample import Place
from .opening import lines_of, opened

# Characters. A book is some of these; training cuts them further, by tokens.
MAX_PIECE = 1 << 20


def read_prose(path: Path) -> Records:
    """The text of the file as records `{"text": ...}`; places are the lines on which pieces begin.

    A file is one piece up to MAX_PIECE. A longer one is cut at the last empty line that fits, or at a line's end.
    """
    file = str(path)
    held: list[str] = []
    size, begin, cut = 0, 1, 0
    with opened(path) as stream:
        for line in lines_of(stream, file):
            if isinstance(line, InvalidData):
                raise line
            if size + len(line.text) > MAX_PIECE and held:
                cut = cut or len(held)
                if piece := "".join(held[:cut]).strip("\n"):
                    yield Record({"text": piece}, Place(file, begin))
                begin, held, cut = begin + cut, held[cut:], 0
                size = sum(map(len, held))
            held.append(line.text)
            size += len(line.text)
            if not line.text.strip():
                cut = len(held)
    if text := "".join(held).strip("\n"):
        yield Record({"text": text}, Place(file, begin))
