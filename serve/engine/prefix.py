"""The names under which computed blocks are found again."""

from __future__ import annotations

from typing import NamedTuple

from ..contract.messages import AdapterUse


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
