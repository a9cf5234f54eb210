"""What files give: one value after another, each with its place, and errors that do not end the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...serve.contract.errors import InvalidData
from .sample import Place


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON value, one row of a table as an object, or a piece of text as `{"text": ...}`."""

    value: Any
    place: Place

    def error(self, what: str, mend: str, *, field: str = "", kind: str = "field") -> InvalidData:
        """An error about this record, to be raised or kept."""
        return InvalidData(what, mend, file=self.place.file, line=self.place.line, field=field, kind=kind)


# A line that is no JSON is told of and the next one is read; what ends a file is raised instead.
Records = Iterator[Record | InvalidData]
