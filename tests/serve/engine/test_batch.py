"""Adapter groups for a part of a batch's tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.engine.batch import AdapterGroups


def pairs(groups: AdapterGroups | None, names: list[int]) -> list[tuple[int, int, float]]:
    """(slot, token, weight) of every use, in order."""
    if groups is None:
        return []
    slots = np.repeat(groups.slots, np.diff(groups.begins)).tolist()
    return list(zip(slots, [names[token] for token in groups.tokens.tolist()], groups.weights.tolist(), strict=True))


@given(st.data())
def test_the_uses_of_the_rows_stay_in_order_under_their_new_numbers(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    members = [
        sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))) for _ in range(data.draw(st.integers(1, 4)))
    ]
    flat = [token for group in members for token in group]
    groups = AdapterGroups(
        slots=np.array(data.draw(st.permutations(range(len(members)))), dtype=np.int32),
        begins=np.cumsum([0, *map(len, members)], dtype=np.int32),
        tokens=np.array(flat, dtype=np.int32),
        weights=np.arange(len(flat), dtype=np.float32),
    )
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1)))), dtype=np.int64)
    wanted = [use for use in pairs(groups, list(range(size))) if use[1] in rows]
    found = groups.among(rows, size)
    assert pairs(found, rows.tolist()) == wanted
    assert (found is None) == (not wanted)
    if found is not None:
        assert found.begins.dtype == found.tokens.dtype == np.int32
