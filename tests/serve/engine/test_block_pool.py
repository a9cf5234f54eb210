from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunechat.serve.contract.messages import AdapterUse
from tunechat.serve.engine.block_pool import BlockPool, IntegrityError, PoolExhausted
from tunechat.serve.engine.prefix import BlockKey, Namespace

SIZE = 2
BLOCKS = 6
HOME = Namespace((), "")


def packed(tokens: list[int]) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in tokens)


def fill(pool: BlockPool, tokens: list[int], namespace: Namespace = HOME) -> list[int]:
    """Blocks of a sequence with these tokens, its full ones registered; cached ones are not looked for."""
    blocks, parent = [], namespace
    for start in range(0, len(tokens), SIZE):
        block = pool.acquire()
        part = tokens[start : start + SIZE]
        if len(part) == SIZE:
            block = pool.register(block, BlockKey(parent, packed(part)))
            parent = pool.serial(block)
        blocks.append(block)
    return blocks


class PoolMachine(RuleBasedStateMachine):
    """Sequences that come, find what is cached, grow and go, against a model that knows what each block contains."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(BLOCKS, SIZE)
        self.sequences: list[tuple[Namespace, list[int], list[int], list[int | Namespace]]] = []
        self.contents: dict[int, tuple[Namespace, tuple[int, ...]]] = {}

    @rule(tokens=st.lists(st.integers(0, 2), max_size=8), salt=st.sampled_from("ab"))
    def begin(self, tokens: list[int], salt: str) -> None:
        namespace = Namespace((), salt)
        found = self.pool.match(namespace, packed(tokens), len(tokens) // SIZE)
        for block in found:
            self.pool.share(block)
        parents: list[int | Namespace] = [namespace, *(self.pool.serial(block) for block in found)]
        for index, block in enumerate(found):
            assert self.contents[block] == (namespace, tuple(tokens[: (index + 1) * SIZE]))
        self.sequences.append((namespace, tokens[: len(found) * SIZE], found, parents))

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE))
    def grow(self, data: st.DataObject, tokens: list[int]) -> None:
        namespace, text, blocks, parents = data.draw(st.sampled_from(self.sequences))
        if not self.pool.free:
            with pytest.raises(PoolExhausted):
                self.pool.acquire()
            return
        block = self.pool.acquire()
        assert block not in {held for sequence in self.sequences for held in sequence[2]}
        text.extend(tokens)
        self.contents[block] = (namespace, tuple(text))
        kept = self.pool.register(block, BlockKey(parents[-1], packed(tokens)))
        assert self.contents[kept] == (namespace, tuple(text))
        blocks.append(kept)
        parents.append(self.pool.serial(kept))

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.sequences) - 1))
        self.pool.release(self.sequences.pop(at)[2])

    @invariant()
    def accounts_agree(self) -> None:
        self.pool.check_integrity(block for sequence in self.sequences for block in sequence[2])
        assert self.pool.free + self.pool.used == BLOCKS
        assert self.pool.used == len({block for sequence in self.sequences for block in sequence[2]})


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase


def test_a_released_sequence_is_found_again_until_its_place_is_needed() -> None:
    pool = BlockPool(3, SIZE)
    blocks = fill(pool, [1, 2, 3, 4])
    pool.release(blocks)
    assert (pool.free, pool.cached) == (3, 2)
    assert pool.match(HOME, packed([1, 2, 3, 4]), 2) == blocks
    pool.acquire()
    assert pool.match(HOME, packed([1, 2, 3, 4]), 2) == blocks
    pool.acquire()
    assert pool.match(HOME, packed([1, 2, 3, 4]), 2) == blocks[:1]


def test_the_least_recently_used_content_goes_first() -> None:
    pool = BlockPool(2, SIZE)
    old, new = fill(pool, [1, 1]), fill(pool, [2, 2])
    pool.release(old)
    pool.release(new)
    pool.share(old[0])
    pool.release(old)
    pool.acquire()
    assert pool.match(HOME, packed([1, 1]), 1) == old
    assert pool.match(HOME, packed([2, 2]), 1) == []


def test_equal_blocks_computed_twice_become_one() -> None:
    pool = BlockPool(4, SIZE)
    first, second = fill(pool, [1, 2]), fill(pool, [1, 2])
    assert first == second
    assert pool.used == 1
    pool.check_integrity([*first, *second])


@pytest.mark.parametrize("other", [Namespace((AdapterUse("digest"),), ""), Namespace((), "tenant")])
def test_other_weights_and_other_tenants_find_nothing(other: Namespace) -> None:
    pool = BlockPool(4, SIZE)
    fill(pool, [1, 2, 3, 4])
    assert pool.match(other, packed([1, 2, 3, 4]), 2) == []


def test_the_same_tokens_after_another_beginning_are_another_block() -> None:
    pool = BlockPool(6, SIZE)
    fill(pool, [1, 2, 3, 4])
    fill(pool, [5, 6])
    assert len(pool.match(HOME, packed([5, 6, 3, 4]), 2)) == 1


def test_forged_equal_hashes_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockKey, "__hash__", lambda self: 0, raising=False)
    assert hash(BlockKey(1, b"a")) == hash(BlockKey(2, b"b"))
    pool = BlockPool(6, SIZE)
    one, two = fill(pool, [1, 2, 3, 4]), fill(pool, [5, 6, 3, 4])
    assert not set(one) & set(two)
    assert pool.match(HOME, packed([5, 6, 3, 4]), 2) == two
    assert pool.match(HOME, packed([7, 8, 3, 4]), 2) == []


def test_without_caching_nothing_is_kept() -> None:
    pool = BlockPool(2, SIZE, caching=False)
    block = pool.acquire()
    assert pool.register(block, BlockKey(HOME, packed([1, 2]))) == block
    assert pool.match(HOME, packed([1, 2]), 1) == []
    assert pool.cached == 0


def test_what_nobody_holds_cannot_be_released() -> None:
    pool = BlockPool(2, SIZE)
    with pytest.raises(IntegrityError):
        pool.release([0])


def test_integrity_sees_a_block_that_leaked_and_one_that_was_lost() -> None:
    pool = BlockPool(2, SIZE)
    block = pool.acquire()
    pool.check_integrity([block])
    with pytest.raises(IntegrityError):
        pool.check_integrity([])
    with pytest.raises(IntegrityError):
        pool.check_integrity([block, block])
