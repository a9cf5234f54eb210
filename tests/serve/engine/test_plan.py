from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.messages import AdapterUse, Submit
from tunechat.serve.engine.block_tables import BlockTables
from tunechat.serve.engine.plan import Work, assemble
from tunechat.serve.engine.sequence import Sequence
from tunechat.tests.serve.engine.harness import greedy

SIZE = 4


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 19), st.integers(1, 20)), min_size=1, max_size=5))
def test_a_batch_says_of_every_token_where_it_belongs(shapes: list[tuple[int, int, int]]) -> None:
    tables = BlockTables(len(shapes), 8)
    plan, next_block = [], 0
    for at, (length, start, count) in enumerate(shapes):
        start = min(start, length - 1)
        prompt = [100 * at + position for position in range(length)]
        sequence = Sequence.of(Submit(sequence=str(at), prompt=prompt, params=greedy(3)), at)
        sequence.row = tables.open()
        blocks = range(next_block, next_block + -(-length // SIZE))
        tables.append(sequence.row, blocks)
        next_block = blocks.stop
        plan.append(Work(sequence, start, min(count, length - start)))
    batch = assemble(tuple(plan), tables, SIZE, {})
    at = 0
    wanted = []
    for row, work in enumerate(plan):
        for position in range(work.start, work.end):
            assert batch.tokens[at] == work.sequence.tokens[position]
            assert batch.positions[at] == position
            assert batch.sequences[at] == row
            block = batch.block_tables[row, position // SIZE]
            assert batch.slots[at] == block * SIZE + position % SIZE
            at += 1
        held = batch.block_tables[row]
        assert (held >= 0).sum() == -(-work.sequence.length // SIZE)
        if work.end == work.sequence.length:
            wanted.append(at - 1)
    assert batch.size == at
    assert batch.logit_rows.tolist() == wanted
    assert batch.adapters is None
    for array, kind in (
        (batch.tokens, np.int32),
        (batch.positions, np.int32),
        (batch.sequences, np.int32),
        (batch.slots, np.int64),
        (batch.block_tables, np.int32),
        (batch.logit_rows, np.int64),
    ):
        assert array.dtype == kind


DIGESTS = ("c", "a", "b")
SLOTS = {"a": 7, "b": 0, "c": 3}


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.dictionaries(st.sampled_from(DIGESTS), st.sampled_from([0.25, 0.5, 1.0])),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_each_token_has_the_adapters_of_its_sequence_in_the_order_of_their_digests(
    shapes: list[tuple[int, dict[str, float]]],
) -> None:
    tables = BlockTables(len(shapes), 8)
    plan, expected = [], []
    for at, (count, weights) in enumerate(shapes):
        uses = tuple(AdapterUse(digest, weight) for digest, weight in weights.items())
        sequence = Sequence.of(Submit(sequence=str(at), prompt=[1] * 6, params=greedy(3), adapters=uses), at)
        sequence.row = tables.open()
        tables.append(sequence.row, [2 * at, 2 * at + 1])
        plan.append(Work(sequence, 0, count))
        expected += [[(SLOTS[digest], weights[digest]) for digest in sorted(weights)]] * count
    groups = assemble(tuple(plan), tables, SIZE, SLOTS).adapters
    if not any(expected):
        assert groups is None
        return
    assert groups is not None
    found: list[list[tuple[int, float]]] = [[] for _ in expected]
    for group, slot in enumerate(groups.slots.tolist()):
        begin, end = groups.begins[group : group + 2]
        tokens = groups.tokens[begin:end].tolist()
        assert tokens == sorted(set(tokens))
        assert tokens
        for token, weight in zip(tokens, groups.weights[begin:end].tolist(), strict=True):
            found[token].append((slot, weight))
    assert found == expected
    assert len(groups.tokens) == len(groups.weights) == groups.begins[-1]
    assert groups.begins[0] == 0
    for array, kind in (
        (groups.slots, np.int32),
        (groups.begins, np.int32),
        (groups.tokens, np.int32),
        (groups.weights, np.float32),
    ):
        assert array.dtype == kind


def test_a_row_that_was_given_back_is_empty_when_it_is_used_again() -> None:
    tables = BlockTables(1, 4)
    row = tables.open()
    tables.append(row, [3, 5])
    tables.replace(row, 1, 7)
    assert list(tables.held()) == [3, 7]
    assert tables.close(row) == [3, 7]
    assert tables.count(tables.open()) == 0
    assert list(tables.held()) == []
