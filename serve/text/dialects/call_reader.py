"""One call, an object with a name and arguments, read as it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from .json_reader import JsonReader

MAX_HEAD = 4096

_SPACE = re.compile(r"[ \t\n\r]*")
_ARGUMENTS = frozenset({"arguments", "parameters"})
_ASIDE = frozenset({"id", "type"})

_OPEN, _FIRST_KEY, _KEY, _KEY_TEXT, _COLON, _VALUE, _NEXT = range(7)


class CallReader:
    """Reads `{"name": ..., "arguments": {...}}` from pieces; `parameters` is another word for `arguments`.

    `name` is there once it is known, `fragments` are the pieces of the arguments that have come since they were last
    taken. `done` once the object is whole, `failed` with the first character that no call can have: wrong JSON, another
    name than one of `names` (None: any), arguments that are no object, a field twice, or one that calls do not have
    (`id` and `type` are passed over).
    """

    __slots__ = (
        "_key",
        "_keys",
        "_names",
        "_piece",
        "_size",
        "_state",
        "_value",
        "done",
        "failed",
        "fragments",
        "name",
    )

    def __init__(self, names: Collection[str] | None) -> None:
        self.name: str | None = None
        self.fragments: list[str] = []
        self.done = False
        self.failed = False
        self._names = names
        self._keys: set[str] = set()
        self._key = ""
        self._piece: list[str] = []  # the key or value under way, as far as it is kept
        self._size = 0
        self._value = JsonReader()
        self._state = _OPEN

    def push(self, text: str, start: int = 0) -> int:
        """Read `text` from `start`; the position behind the call, or of the first character that is wrong."""
        position, size = start, len(text)
        while position < size and not self.done and not self.failed:
            if self._state == _VALUE or self._state == _KEY_TEXT:
                position = self._read(text, position)
                continue
            match = _SPACE.match(text, position)
            position = match.end() if match else position
            if position < size:
                position = self._structure(text[position], position)
        return position

    def _structure(self, character: str, position: int) -> int:
        state = self._state
        if state == _OPEN and character == "{":
            self._state = _FIRST_KEY
        elif state in (_FIRST_KEY, _KEY) and character == '"':
            self._state = _KEY_TEXT
            self._value, self._piece, self._size = JsonReader(), [], 0
            return position
        elif state == _COLON and character == ":":
            self._state = _VALUE
            self._value, self._piece, self._size = JsonReader(), [], 0
        elif state == _NEXT and character == ",":
            self._state = _KEY
        elif state == _NEXT and character == "}" and self.name is not None:
            self.done = True
            if not self._keys & _ARGUMENTS:
                self.fragments.append("{}")
        else:
            return self._fail(position)
        return position + 1

    def _read(self, text: str, position: int) -> int:
        """More of a key or of a value."""
        is_arguments = self._state == _VALUE and self._key in _ARGUMENTS
        if is_arguments and not self._piece:
            match = _SPACE.match(text, position)
            position = match.end() if match else position
            if position == len(text):
                return position
            if text[position] != "{":
                return self._fail(position)
        end = self._value.push(text, position)
        piece = text[position:end]
        self._piece.append(piece if not is_arguments else "")
        if is_arguments:
            self.fragments.append(piece)
        else:
            self._size += len(piece)
        if self._value.failed or self._size > MAX_HEAD:
            return self._fail(end)
        if self._value.done and not (self._end_key() if self._state == _KEY_TEXT else self._end_value()):
            return self._fail(end)
        return end

    def _end_key(self) -> bool:
        key = _decoded("".join(self._piece))
        kind = "arguments" if key in _ARGUMENTS else key
        if not isinstance(key, str) or (kind not in _ASIDE and kind not in ("name", "arguments")) or kind in self._keys:
            return False
        self._keys.add(kind)
        self._key = key
        self._state = _COLON
        return True

    def _end_value(self) -> bool:
        self._state = _NEXT
        if self._key == "name":
            name = _decoded("".join(self._piece))
            if not isinstance(name, str) or not name or (self._names is not None and name not in self._names):
                return False
            self.name = name
        return True

    def _fail(self, position: int) -> int:
        self.failed = True
        return position


def _decoded(text: str) -> object:
    """The value of a JSON text that the reader has found to be whole."""
    return json.loads(text)
