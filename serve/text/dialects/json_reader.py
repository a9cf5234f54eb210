"""A JSON value read as it comes, every character looked at once."""

from __future__ import annotations

import re

MAX_DEPTH = 512
MAX_NUMBER = 1000

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[-+.0-9eE]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_HEX = frozenset("0123456789abcdefABCDEF")
_WORDS = {"t": "true", "f": "false", "n": "null"}

# What may come next.
_VALUE, _FIRST_ITEM, _FIRST_KEY, _KEY, _COLON, _NEXT, _STRING, _ESCAPE, _CODE, _WORD, _DIGIT = range(11)
_SPACED = frozenset({_VALUE, _FIRST_ITEM, _FIRST_KEY, _KEY, _COLON, _NEXT})


class JsonReader:
    """Finds the end of one JSON value (RFC 8259) in text that comes in pieces, and the first character that is wrong.

    `done` once the value is whole, `failed` once it cannot become one. Longer numbers than MAX_NUMBER characters fail,
    and deeper nesting than MAX_DEPTH: what is read here must be read by `json.loads`, too, which in Python
    3.11 has 1,000 levels together with the frames of whoever calls. Nothing is kept of the text.
    """

    __slots__ = ("_digits", "_in_key", "_length", "_stack", "_state", "_word", "done", "failed")

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._state = _VALUE
        self._stack: list[str] = []
        self._in_key = False
        self._length = 0  # hexadecimal digits that have come of a \u
        self._word = ""  # what must still come of a literal
        self._digits: list[str] = []

    def push(self, text: str, start: int = 0) -> int:
        """Read `text` from `start`; the position behind what belongs to the value, or of the wrong character."""
        position, size = start, len(text)
        while position < size and not self.done and not self.failed:
            if self._state in _SPACED:
                position = _skip(text, position)
                if position == size:
                    break
                position = self._structure(text[position], position)
            elif self._state == _STRING:
                position = self._string(text, position)
            elif self._state == _DIGIT:
                position = self._number(text, position)
            else:
                position = self._letter(text[position], position)
        return position

    def finish(self) -> None:
        """No more text comes: a number at the very end is whole now."""
        if self._state == _DIGIT and not self.failed:
            self._end_number()

    def _structure(self, character: str, position: int) -> int:
        state = self._state
        if state == _COLON:
            return self._go(_VALUE, position) if character == ":" else self._fail(position)
        if state in (_KEY, _FIRST_KEY):
            if character == '"':
                self._in_key = True
                return self._go(_STRING, position)
            return self._close(position) if state == _FIRST_KEY and character == "}" else self._fail(position)
        if state == _NEXT:
            if character == ",":
                return self._go(_KEY if self._stack[-1] == "}" else _VALUE, position)
            return self._close(position) if character == self._stack[-1] else self._fail(position)
        if state == _FIRST_ITEM and character == "]":
            return self._close(position)
        return self._begin(character, position)

    def _begin(self, character: str, position: int) -> int:
        """The first character of a value."""
        if character in "{[":
            if len(self._stack) == MAX_DEPTH:
                return self._fail(position)
            self._stack.append("}" if character == "{" else "]")
            return self._go(_FIRST_KEY if character == "{" else _FIRST_ITEM, position)
        if character == '"':
            self._in_key = False
            return self._go(_STRING, position)
        if character in _WORDS:
            self._word = _WORDS[character][1:]
            return self._go(_WORD, position)
        if character == "-" or "0" <= character <= "9":
            self._digits, self._length = [], 0
            self._state = _DIGIT
            return position
        return self._fail(position)

    def _string(self, text: str, position: int) -> int:
        match = _PLAIN.match(text, position)
        position = match.end() if match else position
        if position == len(text):
            return position
        if text[position] == '"':
            if self._in_key:
                return self._go(_COLON, position)
            self._end_value()
            return position + 1
        return self._go(_ESCAPE, position) if text[position] == "\\" else self._fail(position)

    def _number(self, text: str, position: int) -> int:
        match = _DIGITS.match(text, position)
        end = match.end() if match else position
        self._digits.append(text[position:end])
        self._length += end - position
        if self._length > MAX_NUMBER:
            return self._fail(end)
        if end < len(text):
            self._end_number()
        return end

    def _end_number(self) -> None:
        if _NUMBER.fullmatch("".join(self._digits)):
            self._end_value()
        else:
            self.failed = True

    def _letter(self, character: str, position: int) -> int:
        if self._state == _WORD:
            if character != self._word[0]:
                return self._fail(position)
            self._word = self._word[1:]
            if not self._word:
                self._end_value()
            return position + 1
        if self._state == _ESCAPE:
            self._length = 0
            if character == "u":
                return self._go(_CODE, position)
            return self._go(_STRING, position) if character in '"\\/bfnrt' else self._fail(position)
        if character not in _HEX:
            return self._fail(position)
        self._length += 1
        return self._go(_STRING if self._length == 4 else _CODE, position)

    def _close(self, position: int) -> int:
        self._stack.pop()
        self._end_value()
        return position + 1

    def _end_value(self) -> None:
        self._state = _NEXT
        self.done = not self._stack

    def _go(self, state: int, position: int) -> int:
        self._state = state
        return position + 1

    def _fail(self, position: int) -> int:
        self.failed = True
        return position


def _skip(text: str, position: int) -> int:
    """The first position from `position` on that holds no white space of JSON."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
