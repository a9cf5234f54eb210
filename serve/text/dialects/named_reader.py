"""One call whose name stands before its arguments, read as it comes."""

from __future__ import annotations

import re
from collections.abc import Collection

from .json_reader import JsonReader

MAX_HEAD = 200

_SPACE = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(r"[^\s\[{]{1,128}")


class NamedReader:
    """Reads `name[ARGS]{...}`, with `[ARGS]` or whatever `infix` is, as `CallReader` reads an object.

    An id between name and arguments (`name[CALL_ID]...[ARGS]`) is passed over.
    """

    __slots__ = ("_begun", "_head", "_infix", "_names", "_value", "done", "failed", "fragments", "name")

    def __init__(self, names: Collection[str] | None, infix: str) -> None:
        self.name: str | None = None
        self.fragments: list[str] = []
        self.done = False
        self.failed = False
        self._names = names
        self._infix = infix
        self._head = ""
        self._value = JsonReader()
        self._begun = False

    def push(self, text: str, start: int = 0) -> int:
        """Read `text` from `start`; the position behind the call, or of the first character that is wrong."""
        position = start if self.name is not None else self._read_head(text, start)
        if self.name is None or self.failed:
            return position
        if not self._begun:
            match = _SPACE.match(text, position)
            position = match.end() if match else position
            if position == len(text):
                return position
            self._begun = True
            self.failed = text[position] != "{"
        if self.failed:
            return position
        end = self._value.push(text, position)
        if end > position:
            self.fragments.append(text[position:end])
        self.done, self.failed = self._value.done, self._value.failed
        return end

    def _read_head(self, text: str, start: int) -> int:
        """More of what stands before the arguments, one character after another: there are few."""
        position = start
        while position < len(text) and not self.failed and self.name is None:
            self._head += text[position]
            position += 1
            self.failed = len(self._head) > MAX_HEAD or self._head[-1] in "{\n"
            if self._head.endswith(self._infix):
                match = _NAME.match(self._head.removesuffix(self._infix).strip())
                self.name = match.group() if match else None
                self.failed = match is None or (self._names is not None and self.name not in self._names)
        return position
