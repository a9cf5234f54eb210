"""Control tokens inside text: where they stand, and whose they are.

A chat template writes control tokens (`<|im_start|>`, `</s>`, `<tool_call>`) around what users wrote. Once rendered,
the two look alike, so a user could write a turn of another role. To tell them apart, a *mark* (one character that
occurs nowhere in the request) is put behind those characters of a user's string with which a control token could begin
or end. The template carries marks along like any other character; when it has run, they are taken out, and a control
token that contains a marked character is text.

What is marked: the first character of every control token in the string, in any letter case; the last visible character
where the string ends in the first part of one, and the first visible one where it begins with the last part of one, so
that none is made across a border; and, where the template puts control tokens together from pieces, strings that are
the middle of one. A string without any of these is left as it is, which is why ordinary requests render exactly as in
transformers. Marks stand behind visible characters only, so `trim` and `strip` work as ever.

Not covered: a template that deletes from the middle of a user's string (`replace`, `striptags`) can join its parts into
a control token.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenizers import AddedToken

from ..contract.errors import InvalidRequest

# Unicode's noncharacters, which no text has a use for, then the private use area of plane 16.
_MARKS = [*map(chr, range(0xFDD0, 0xFDF0)), *map(chr, range(0x100000, 0x10FFFE))]


class Occurrence(NamedTuple):
    """A control token in a text: characters start to end."""

    start: int
    end: int
    token: str


class ControlTokens:
    """The added tokens of a tokenizer that steer the model.

    All that are special, and of the others all but those that are words or white space, which some tokenizers add to
    compress ordinary text.
    """

    def __init__(self, added: dict[int, AddedToken]) -> None:
        self.ids = {token.content: id_ for id_, token in added.items() if _is_control(token)}
        self.visible = frozenset(token.content for token in added.values() if not token.special)
        self._folded = sorted({token.casefold() for token in self.ids})
        self._known = frozenset(self._folded)
        self._reversed = sorted(token[::-1] for token in self._folded)
        self._longest = max(map(len, self._folded), default=0)
        lengths: dict[str, set[int]] = {}
        for token in self._folded:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        starts = "|".join(re.escape(start) for start in sorted(lengths, key=len, reverse=True))
        # Looks ahead without moving on, so that places that overlap are found too.
        self._start = re.compile(f"(?=({starts}))" if starts else "(?!)", re.IGNORECASE)

    def has_any(self, text: str) -> bool:
        """Whether any control token stands in `text`."""
        return next(self.find(text), None) is not None

    def find(self, text: str, marked: Sequence[int] = ()) -> Iterator[Occurrence]:
        """Control tokens of `text`, leftmost and longest first, without any of the `marked` (ascending) positions."""
        end = 0
        for start, length in self._candidates(text):
            token = text[start : start + length]
            if start >= end and token in self.ids and not _any_between(marked, start, start + length):
                end = start + length
                yield Occurrence(start, end, token)

    def mark(self, text: str, mark: str, *, middles: bool = False, spare: frozenset[str] = frozenset()) -> str:
        """`text` with `mark` behind the characters that no control token may contain.

        Tokens in `spare` stay usable. `middles` says that the template builds control tokens from pieces.
        """
        positions = {start for start, length in self._candidates(text) if text[start : start + length] not in spare}
        visible = text.strip()
        if visible:
            first = len(text) - len(text.lstrip())
            if self._ends_open(visible):
                positions.add(first + len(visible) - 1)
            if self._starts_open(visible) or (middles and self._is_middle(visible)):
                positions.add(first)
        if not positions:
            return text
        pieces, done = [], 0
        for position in sorted(positions):
            pieces.append(text[done : position + 1])
            done = position + 1
        return mark.join([*pieces, text[done:]])

    def _candidates(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and length of every control token, in any letter case; of those that start together, longest first."""
        for match in self._start.finditer(text):
            start = match.start()
            for length in self._lengths.get(match[1].casefold(), ()):
                if start + length <= len(text) and text[start : start + length].casefold() in self._known:
                    yield start, length

    def _ends_open(self, text: str) -> bool:
        tail = text[-self._longest :].casefold()
        return any(_has_longer(self._folded, tail[start:]) for start in range(len(tail)))

    def _starts_open(self, text: str) -> bool:
        head = text[: self._longest].casefold()[::-1]
        return any(_has_longer(self._reversed, head[start:]) for start in range(len(head)))

    def _is_middle(self, text: str) -> bool:
        folded = text.casefold()
        return any(folded in token for token in self._folded)

    def ends_with_part(self, literal: str) -> bool:
        """Whether `literal` ends in the first part of a control token: a template with such text builds tokens."""
        return bool(literal) and self._ends_open(literal)


def choose_marks(texts: Sequence[str], count: int) -> list[str]:
    """Characters that occur in none of the texts. Raises InvalidRequest where all candidates are taken."""
    free = (mark for mark in _MARKS if not any(mark in text for text in texts))
    marks = list(itertools.islice(free, count))
    if len(marks) < count:
        raise InvalidRequest("The messages use every private character of Unicode.", param="messages")
    return marks


def take_out(text: str, mark: str) -> tuple[str, list[int]]:
    """`text` without its marks, and the positions (in the result, ascending) of the characters they stood behind."""
    pieces = text.split(mark)
    positions, length = [], 0
    for piece in pieces[:-1]:
        length += len(piece)
        if length:
            positions.append(length - 1)
    return "".join(pieces), positions


def _is_control(token: AddedToken) -> bool:
    is_text = all(character.isalnum() or character.isspace() for character in token.content)
    return bool(token.content) and (token.special or not is_text)


def _any_between(positions: Sequence[int], start: int, end: int) -> bool:
    """Whether any of the ascending `positions` lies in start to end (exclusive)."""
    index = bisect.bisect_left(positions, start)
    return index < len(positions) and positions[index] < end


def _has_longer(words: Sequence[str], part: str) -> bool:
    """Whether any of the sorted `words` begins with `part` and goes on."""
    index = bisect.bisect_right(words, part)
    return index < len(words) and words[index].startswith(part)
