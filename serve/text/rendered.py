"""Rendered text that still knows which control tokens in it count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .vocabulary import Vocabulary

_NEIGHBOURS = "\n]x;0"


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text, and the positions (ascending) of the characters in it that no control token may contain."""

    text: str
    marked: Sequence[int] = ()

    def starts_with(self, other: Rendered) -> bool:
        """Whether `other` is a beginning of it, with the same control tokens in it."""
        if not self.text.startswith(other.text):
            return False
        end = len(other.text)
        return [at for at in self.marked if at < end] == list(other.marked)

    def after(self, start: int) -> Rendered:
        """What stands from character `start` on."""
        return Rendered(self.text[start:], [at - start for at in self.marked if at >= start])

    def trimmed(self) -> Rendered:
        """The same without white space at its end."""
        text = self.text.rstrip()
        return Rendered(text, [at for at in self.marked if at < len(text)])


def encode_behind(
    vocabulary: Vocabulary, rendered: Rendered, spells: Callable[[Sequence[int], str], bool]
) -> list[int] | None:
    """Token ids of `rendered` as it is spelled inside a text, None where no way to spell it there is found.

    Tokenizers treat the beginning of a text in a special way, and join what stands side by side. So it is encoded
    behind something that it is not joined with: a control token, or a character. `spells` checks the outcome.
    """
    if not rendered.text:
        return []
    for before in (_wall(vocabulary), *_NEIGHBOURS):
        head = vocabulary.encode_marked(before, [])
        marked = [at + len(before) for at in rendered.marked]
        ids = vocabulary.encode_marked(before + rendered.text, marked)
        if before and ids[: len(head)] == head and spells(ids[len(head) :], rendered.text):
            return ids[len(head) :]
    return None


def _wall(vocabulary: Vocabulary) -> str:
    """A control token that takes nothing from the text on either side, "" where there is none."""
    added = (vocabulary.added[id_] for id_ in sorted(vocabulary.control.ids.values()))
    plain = (token for token in added if not (token.lstrip or token.rstrip or token.single_word))
    return next((token.content for token in plain if token.special), "")
