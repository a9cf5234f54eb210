"""Words that steer, found in text that comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence


class MarkerSearch:
    """Finds the first of `words` in a text, and what at its end may still become one of them."""

    def __init__(self, words: Sequence[str]) -> None:
        longest_first = sorted(words, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) if words else "(?!)")
        self._parts = frozenset(word[:size] for word in words for size in range(1, len(word)))
        self._longest = max(map(len, self._parts), default=0)

    def split(self, text: str, start: int = 0) -> tuple[str, str, int]:
        """What comes from `start` on before the first word, the word, and where the rest begins.

        Where there is none, the word is "" and the rest is the end of the text that may be the beginning of one.
        """
        match = self._any.search(text, start)
        if match:
            return text[start : match.start()], match.group(), match.end()
        for size in range(min(self._longest, len(text) - start), 0, -1):
            if text[-size:] in self._parts:
                return text[start:-size], "", len(text) - size
        return text[start:], "", len(text)
