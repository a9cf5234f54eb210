"""A row as text for people, in pieces that are learned or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from ...serve.text.model_text import ModelText
from .row import Row


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a row's text. `weight` 0: not learned. `tokens` counts its tokens."""

    text: str
    weight: float
    tokens: int


def pieces(row: Row, text: ModelText) -> Iterator[list[Piece]]:
    """The samples of the row, each as the pieces that it consists of, special tokens written out."""
    end = 0
    for length in row.lengths:
        start, end = end, end + length
        pairs = zip(row.tokens[start:end].tolist(), row.weights[start:end].tolist(), strict=True)
        yield [
            _piece([token for token, _ in run], weight, text)
            for weight, run in groupby(pairs, key=lambda pair: pair[1])
        ]


def as_text(row: Row, text: ModelText, *, begin: str = "«", end: str = "»") -> str:
    """The row as plain text, with marks around what is learned."""
    samples = []
    for sample in pieces(row, text):
        samples.append("".join(f"{begin}{piece.text}{end}" if piece.weight else piece.text for piece in sample))
    return "\n\n".join(samples)


def _piece(tokens: list[int], weight: float, text: ModelText) -> Piece:
    return Piece(text.decode(tokens, skip_special=False, continues=True), weight, len(tokens))
