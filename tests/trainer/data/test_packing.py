"""Every row once an epoch, as few batches as best fit gives, and the same order whenever it is asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.trainer.data.packing import BatchOrder, Grouping, Position, join, pack
from tunechat.trainer.data.row import Row

lengths = st.lists(st.integers(1, 40), max_size=40)
groupings: tuple[Grouping, ...] = ("pack", "group", "single")


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    """The sums of the bins, the plain way."""
    sums: list[int] = []
    for length in sorted(lengths, reverse=True):
        open_ = [index for index, total in enumerate(sums) if total + length <= capacity]
        if open_:
            sums[max(open_, key=lambda index: sums[index])] += length
        else:
            sums.append(length)
    return sorted(sums)


@given(lengths=lengths, capacity=st.integers(1, 64))
def test_packs_as_best_fit_decreasing(lengths: list[int], capacity: int) -> None:
    bins = pack(lengths, capacity)
    assert sorted(itertools.chain.from_iterable(bins)) == list(range(len(lengths)))
    assert sorted(sum(lengths[item] for item in bin_) for bin_ in bins) == best_fit_decreasing(lengths, capacity)


@given(lengths=lengths, most=st.integers(1, 4))
def test_bins_have_no_more_items_than_allowed(lengths: list[int], most: int) -> None:
    bins = pack(lengths, 50, most=most)
    assert all(len(bin_) <= most for bin_ in bins)
    assert sorted(itertools.chain.from_iterable(bins)) == list(range(len(lengths)))


@pytest.mark.parametrize("grouping", groupings)
@given(lengths=lengths, tokens=st.integers(1, 80), seed=st.integers(0, 9), rows=st.integers(0, 3))
def test_every_row_is_in_one_batch_that_is_not_too_large(
    grouping: Grouping, lengths: list[int], tokens: int, seed: int, rows: int
) -> None:
    order = BatchOrder(lengths, tokens, seed, grouping, rows)
    for epoch in range(2):
        batches = order.batches(epoch)
        assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
        for batch in batches:
            sizes = [lengths[row] for row in batch]
            size = sum(sizes) if grouping == "pack" else max(sizes) * len(sizes)
            assert size <= tokens or len(batch) == 1
            assert not rows or len(batch) <= rows


@pytest.mark.parametrize("grouping", groupings)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), stop=st.integers(0, 60))
def test_goes_on_from_any_position_as_if_never_stopped(grouping: Grouping, lengths: list[int], stop: int) -> None:
    order = BatchOrder(lengths, 60, 5, grouping)
    whole = list(order.after(Position(0, 0), epochs=3))
    stop %= len(whole)
    behind = whole[stop][0]
    assert list(BatchOrder(lengths, 60, 5, grouping).after(behind, epochs=3)) == whole[stop + 1 :]
    assert whole[-1][0] == Position(3, 0)


def test_epochs_and_seeds_differ_and_the_order_is_what_it_was() -> None:
    lengths = [3, 5, 7, 2, 8, 4, 6, 1] * 4
    order = BatchOrder(lengths, 16, 1)
    assert order.batches(0) != order.batches(1)
    assert order.batches(0) != BatchOrder(lengths, 16, 2).batches(0)
    # Checkpoints hold nothing but a position, so the order must not change from version to version.
    assert BatchOrder([3, 5, 7, 2], 10, 1).batches(0) == [(2, 0), (1, 3)]


def test_like_lengths_come_together() -> None:
    lengths = [1, 30] * 20
    for batch in BatchOrder(lengths, 60, 0, "group").batches(0):
        assert len({lengths[row] for row in batch}) == 1 or len(batch) < 3


def test_an_order_without_rows_ends() -> None:
    assert list(BatchOrder([], 10).after(Position(0, 0))) == []


def test_joined_rows_stay_samples() -> None:
    rows = [
        Row(np.array([1, 2], np.int32), np.array([0, 1], np.float32), (2,)),
        Row(np.array([3, 4, 5], np.int32), np.array([0, 0, 0.5], np.float32), (3,)),
    ]
    row = join(rows)
    assert row.tokens.tolist() == [1, 2, 3, 4, 5]
    assert row.weights.tolist() == [0, 1, 0, 0, 0.5]
    assert row.lengths == (2, 3)
    assert row.positions.tolist() == [0, 1, 0, 1, 2]
    assert row.trained == 2
