"""Reasoning blocks: what a model thinks before it answers, between two markers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .events import ReasoningDelta
from .marker import MarkerSearch

Thinking = Literal["no", "may", "open"]

_SPACE = " \t\n\r"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The markers of a reasoning block, and the white space that models write inside it and behind it."""

    opener: str = "<think>"
    closer: str = "</think>"
    lead: str = "\n"
    gap: str = "\n\n"

    def after(self, prompt: str) -> Thinking:
        """Whether a turn after `prompt` (its end is enough) may begin with a block, goes on in one, or has had its."""
        end = prompt.rstrip(_SPACE)
        if end.endswith(self.opener):
            return "open"
        return "no" if end.endswith(self.closer) else "may"

    def render(self, reasoning: str) -> str:
        """A block as models write it, with the white space that follows."""
        return f"{self.opener}{self.lead}{reasoning}{self.lead}{self.closer}{self.gap}" if reasoning else ""


class ReasoningReader:
    """Takes the reasoning block off the beginning of a turn.

    White space at either end of a block is not part of it. `opened`: the prompt ended inside a block; the text may open
    it once more. `done` once what comes is the answer; `found` says whether there is a block.
    """

    def __init__(self, reasoning: Reasoning, *, opened: bool) -> None:
        self.done = False
        self.found = opened
        self._opener = reasoning.opener
        self._search = MarkerSearch((reasoning.closer,))
        self._begun = False
        self._is_empty = True
        self._space: list[str] = []

    def push(self, text: str) -> tuple[list[ReasoningDelta], str]:
        """What of the block is certain, and the rest of `text`, to be pushed again with what follows.

        Once `done`, the rest is the answer's.
        """
        if not self._begun:
            body = self._hold_space(text)
            if self._opener.startswith(body) and body != self._opener:
                return [], body
            text = self._begin(body)
            if self.done:
                return [], text
        before, word, end = self._search.split(text)
        self.done = bool(word)
        return self._block(before), text[end:]

    def finish(self, text: str) -> tuple[list[ReasoningDelta], str]:
        """What of the block is left, and the rest of `text` that is the answer's."""
        if not self._begun:
            text = self._begin(self._hold_space(text))
        return ([], text) if self.done else (self._block(text), "")

    def _begin(self, body: str) -> str:
        """How the turn begins is known: its text from there on."""
        self._begun = True
        space, self._space = "".join(self._space), []
        if body.startswith(self._opener):
            self.found = True
            return body[len(self._opener) :]
        self.done = not self.found
        return space + body if self.done else body

    def _hold_space(self, text: str) -> str:
        body = text.lstrip(_SPACE)
        self._space.append(text[: len(text) - len(body)])
        return body

    def _block(self, text: str) -> list[ReasoningDelta]:
        if self._is_empty:
            text = text.lstrip(_SPACE)
        shown = text.rstrip(_SPACE)
        if not shown:
            self._space.append(text)
            return []
        self._is_empty = False
        said = "".join(self._space) + shown
        self._space = [text[len(shown) :]]
        return [ReasoningDelta(said)]
