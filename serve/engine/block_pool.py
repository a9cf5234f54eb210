"""Which blocks of the KV pool are held, by how many, and what the free ones still remember. No tensors here."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from .prefix import BlockKey, Namespace


class IntegrityError(Exception):
    """The accounting contradicts itself: a bug of ours. The engine must not go on."""


class PoolExhausted(Exception):
    """No block is free. The scheduler checks first, so this reaching anybody is a bug."""


class BlockPool:
    """Reference-counted blocks, with a prefix cache over the full ones.

    A block that nobody holds is free. A free block that is cached keeps its content until its place is needed, the
    least recently used first. Whoever holds a cached block holds all blocks before it too, and blocks are released last
    first; so a cached block is always evicted before the block it follows, and every cached block can be found.
    """

    def __init__(self, blocks: int, block_size: int, *, caching: bool = True) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self._caching = caching
        self._holders = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._keys: dict[int, BlockKey] = {}
        self._serials: dict[int, int] = {}
        self._by_key: dict[BlockKey, int] = {}
        self._next_serial = 0

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.blocks - len(self._free)

    @property
    def cached(self) -> int:
        """Blocks, held or free, that can be found by their content."""
        return len(self._keys)

    def acquire(self) -> int:
        """A block of the caller's own, content undefined. Raises PoolExhausted."""
        if not self._free:
            raise PoolExhausted
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._holders[block] = 1
        return block

    def share(self, block: int) -> None:
        """Hold a cached block, as `find` gave it."""
        if self._holders[block] == 0:
            del self._free[block]
        self._holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one hold on each of a sequence's blocks, named in the order of its text."""
        for block in reversed(list(blocks)):
            if self._holders[block] < 1:
                raise IntegrityError(f"block {block} was released by somebody who did not hold it")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if block not in self._keys:
                    self._free.move_to_end(block, last=False)

    def is_held(self, block: int) -> bool:
        return self._holders[block] > 0

    def serial(self, block: int) -> int:
        """What a key names a cached block by; serials are never used again."""
        return self._serials[block]

    def find(self, key: BlockKey) -> int | None:
        """The block with exactly this content, not yet held for the caller."""
        return self._by_key.get(key)

    def match(self, namespace: Namespace, tokens: memoryview | bytes, most: int) -> list[int]:
        """The cached blocks that `tokens` (int32 ids as bytes) begin with, at most `most` of them, not yet held."""
        width = 4 * self.block_size
        found: list[int] = []
        parent: int | Namespace = namespace
        while len(found) < most:
            start = len(found) * width
            block = self._by_key.get(BlockKey(parent, bytes(tokens[start : start + width])))
            if block is None:
                break
            found.append(block)
            parent = self._serials[block]
        return found

    def register(self, block: int, key: BlockKey) -> int:
        """Let a held block, now full and computed, be found by `key`; gives the block to use for it from now on.

        That is another one when the same content is there already: the caller then holds that one, and `block` is
        released.
        """
        if not self._caching:
            return block
        twin = self._by_key.get(key)
        if twin == block:
            return block
        if twin is not None:
            self.share(twin)
            self.release([block])
            return twin
        self._by_key[key] = block
        self._keys[block] = key
        self._serials[block] = self._next_serial
        self._next_serial += 1
        return block

    @property
    def is_caching(self) -> bool:
        return self._caching

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises IntegrityError unless the accounts agree with themselves and with `held`: every hold that exists."""
        counts = Counter(held)
        for block, holders in enumerate(self._holders):
            if holders != counts[block]:
                raise IntegrityError(f"block {block} is held {counts[block]} times and counted {holders} times")
            if (holders == 0) != (block in self._free):
                raise IntegrityError(f"block {block} has {holders} holders and is free: {block in self._free}")
        if len(self._keys) != len(self._by_key) or self._keys.keys() != self._serials.keys():
            raise IntegrityError("the prefix cache's tables differ in what they hold")
        live = set(self._serials.values())
        for block, key in self._keys.items():
            if self._by_key.get(key) != block:
                raise IntegrityError(f"block {block} is not found by its own key")
            if isinstance(key.parent, int) and key.parent not in live:
                raise IntegrityError(f"cached block {block} follows a block that is gone")

    def _forget(self, block: int) -> None:
        key = self._keys.pop(block, None)
        if key is not None:
            del self._by_key[key]
            del self._serials[block]
