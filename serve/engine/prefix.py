"""The names under which computed blocks are found again."""

from __future__ import annotations

from typing import NamedTuple

from ..contract.messages import AdapterUse

# Compositions with an epoch of their own; past this many, one new epoch for all replaces them.
_MOST_EPOCHS = 1024


class Namespace(NamedTuple):
    """Whose blocks may be shared: those computed with the same weights, for the same tenant, in the same epoch.

    `adapters` are in ascending order, so that the same composition has one name. A new epoch begins when something
    computed before may be wrong.
    """

    adapters: tuple[AdapterUse, ...]
    salt: str
    epoch: int = 0


class BlockKey(NamedTuple):
    """A full block by its content: what stands before it, and its own tokens.

    `parent` is the serial number of the cached block before it, or the namespace for the first block of a sequence;
    `tokens` are its int32 token ids as bytes. The key is the content itself, not a digest of it: a dictionary compares
    keys after it has compared hashes, so equal hashes never make different tokens share a block, and each block is
    hashed once, over its own tokens only.
    """

    parent: int | Namespace
    tokens: bytes


class Epochs:
    """The current epoch of each composition of adapters; the base alone is the empty one.

    Rows of a batch do not influence each other, so values that are no numbers can only be in blocks of the composition
    that gave them. A number is never used twice.
    """

    def __init__(self) -> None:
        self._latest = self._common = 0
        self._own: dict[tuple[AdapterUse, ...], int] = {}

    def of(self, adapters: tuple[AdapterUse, ...]) -> int:
        return self._own.get(adapters, self._common)

    def advance(self, adapters: tuple[AdapterUse, ...]) -> None:
        """Nothing that was computed with these so far is found any more."""
        self._latest += 1
        if len(self._own) >= _MOST_EPOCHS:
            self._own.clear()
            self._common = self._latest
        else:
            self._own[adapters] = self._latest
