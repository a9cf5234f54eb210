"""Samples that are alike, found by fingerprints of some bytes each."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sample import Conversation, Place, Sample

_NOT_WORDS = re.compile(r"\W+")


class Fingerprints:
    """The fingerprints and places of many samples: some 30 bytes each.

    Two are alike where 64 bits of a hash are. `exact` is of all that a sample has; `loose` is of its words alone,
    whatever their case and what stands between them.
    """

    def __init__(self) -> None:
        self._exact = array("Q")
        self._loose = array("Q")
        self._lines = array("Q")
        self._files = array("I")
        self._numbers: dict[str, int] = {}
        self._order: list[str] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, sample: Sample) -> None:
        self._exact.append(_hash(_whole(sample)))
        self._loose.append(_hash(_words(sample)))
        self._lines.append(sample.place.line)
        number = self._numbers.setdefault(sample.place.file, len(self._order))
        if number == len(self._order):
            self._order.append(sample.place.file)
        self._files.append(number)

    def repeated(self) -> Iterator[tuple[Place, Place, bool]]:
        """Samples that were there before: their places, those of the first ones, and whether they are exactly alike."""
        exact = _firsts(_values(self._exact))
        loose = _firsts(_values(self._loose))
        for index in np.flatnonzero(loose != np.arange(len(loose))):
            is_exact = exact[index] != index
            first = exact[index] if is_exact else loose[index]
            yield self._place(int(index)), self._place(int(first)), bool(is_exact)

    def shared(self, others: Fingerprints) -> Iterator[tuple[Place, Place]]:
        """Samples whose words are those of one of `others`: their places, and those of these."""
        theirs = _values(others._loose)
        order = np.argsort(theirs, kind="stable")
        mine = _values(self._loose)
        found = np.searchsorted(theirs, mine, sorter=order)
        for index in np.flatnonzero(found < len(theirs)):
            other = int(order[found[index]])
            if theirs[other] == mine[index]:
                yield self._place(int(index)), others._place(other)

    def _place(self, index: int) -> Place:
        return Place(self._order[self._files[index]], self._lines[index])


def _values(hashes: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(hashes, dtype=np.uint64) if len(hashes) else np.zeros(0, dtype=np.uint64)


def _firsts(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """For each value the index at which it stands first."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _whole(sample: Sample) -> bytes:
    if isinstance(sample, Conversation):
        parts: Any = [list(sample.messages), list(sample.tools), list(sample.rejected)]
    else:
        parts = sample.text
    return json.dumps(parts, sort_keys=True).encode()


def _words(sample: Sample) -> bytes:
    if isinstance(sample, Conversation):
        pieces = [piece for message in (*sample.messages, *sample.rejected) for piece in _said(message)]
        text = "\0".join(pieces)
    else:
        text = sample.text
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip().encode()


def _said(message: Any) -> Iterator[str]:
    content = message.get("content") or ""
    yield message["role"]
    yield content if isinstance(content, str) else " ".join(part["text"] for part in content)
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        yield call["function"]["arguments"]
