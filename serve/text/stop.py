"""Stop strings: text flows through and ends before the first of them, however the text arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Passes text on until a stop string appears in it; no part of the stop string is ever passed on.

    The result depends on the text alone, not on how it is cut into pieces: all text up to the stop string that begins
    first. Of several that begin at the same place the shortest counts, so that nothing need be waited for. With
    `include_stop` that stop string itself is passed on too.

    Only text that may still become a stop string is held back. The work is linear in the length of the text, whatever
    the stop strings are (Aho and Corasick, 1975). An empty stop string raises ValueError.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self.matched: str | None = None
        self._automaton = _Automaton(stops) if stops else None
        self._include_stop = include_stop
        self._state = 0
        self._seen = 0  # characters pushed
        self._passed = 0  # characters passed on
        self._held = ""  # those between the two
        self._found: tuple[int, int] | None = None  # the best match so far: start and end

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be passed on now, and the stop string as soon as it is certain.

        Text after the stop string is dropped, in this call and in later ones.
        """
        if self.matched is not None:
            return "", self.matched
        if self._automaton is None:
            return text, None
        self._held += text
        for character in text:
            self._state = state = self._automaton.step(self._state, character)
            self._seen += 1
            length = self._automaton.match_length[state]
            if length and (self._found is None or self._seen - length < self._found[0]):
                self._found = self._seen - length, self._seen
            if self._found is not None and self._open_start >= self._found[0]:
                return self._end(self._found), self.matched
        return self._pass_on(self._open_start), None

    def finish(self) -> str:
        """What was held back, now that no more text comes. Sets `matched` where a stop string lies in it."""
        if self.matched is not None or self._automaton is None:
            return ""
        if self._found is not None:
            return self._end(self._found)
        return self._pass_on(self._seen)

    @property
    def _open_start(self) -> int:
        """Where the earliest stop string begins that more text might complete; all before it is certain."""
        return self._seen - self._automaton.depth[self._state] if self._automaton else self._seen

    def _pass_on(self, end: int) -> str:
        count = end - self._passed
        text, self._held = self._held[:count], self._held[count:]
        self._passed = end
        return text

    def _end(self, found: tuple[int, int]) -> str:
        start, end = found
        self.matched = self._held[start - self._passed : end - self._passed]
        return self._pass_on(end if self._include_stop else start)


class _Automaton:
    """The trie of the stop strings with its failure links, as lists indexed by state; 0 is the root.

    `depth` is the length of the longest ending of the text that begins a stop string, `match_length` that of the
    longest stop string that ends here (0 for none).
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._edges: list[dict[str, int]] = [{}]
        self._failure = [0]
        self.depth = [0]
        self.match_length = [0]
        for word in words:
            self._insert(word)
        self._link()

    def step(self, state: int, character: str) -> int:
        """The state after one more character. Linear over a text: each failure link undoes an earlier step down."""
        while state and character not in self._edges[state]:
            state = self._failure[state]
        return self._edges[state].get(character, 0)

    def _insert(self, word: str) -> None:
        state = 0
        for character in word:
            if character not in self._edges[state]:
                self._edges[state][character] = len(self._edges)
                self._edges.append({})
                self._failure.append(0)
                self.depth.append(self.depth[state] + 1)
                self.match_length.append(0)
            state = self._edges[state][character]
        self.match_length[state] = len(word)

    def _link(self) -> None:
        queue = deque(self._edges[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._edges[state].items():
                self._failure[child] = self.step(self._failure[state], character)
                queue.append(child)
            self.match_length[state] = self.match_length[state] or self.match_length[self._failure[state]]
