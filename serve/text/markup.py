"""Strings for a chat template of which some parts are ours, and may hold control tokens."""

from __future__ import annotations


class Own(str):
    """A piece of text that this program wrote: control tokens in it are meant."""

    __slots__ = ()


class Markup(str):
    """A string put together from pieces, those of `Own` and others; control tokens in the others are text.

    To everything but the renderer it is an ordinary string, and any string made from it is one.
    """

    __slots__ = ("pieces",)
    pieces: tuple[str, ...]

    def __new__(cls, *pieces: str) -> Markup:
        flat = tuple(part for piece in pieces for part in (piece.pieces if isinstance(piece, Markup) else (piece,)))
        self = super().__new__(cls, "".join(flat))
        self.pieces = flat
        return self
