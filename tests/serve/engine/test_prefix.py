from __future__ import annotations

from tunechat.serve.contract.messages import AdapterUse
from tunechat.serve.engine import prefix
from tunechat.serve.engine.prefix import Epochs

A, B = (AdapterUse("a"),), (AdapterUse("b"), AdapterUse("c"))


def test_an_epoch_ends_for_one_composition() -> None:
    epochs = Epochs()
    before = [epochs.of(adapters) for adapters in ((), A, B)]
    epochs.advance(A)
    assert [epochs.of(()), epochs.of(B)] == [before[0], before[2]]
    assert epochs.of(A) != before[1]
    first = epochs.of(A)
    epochs.advance(())
    assert epochs.of(A) == first
    assert epochs.of(()) != before[0]


def test_no_epoch_comes_twice_and_few_are_remembered() -> None:
    epochs = Epochs()
    seen: dict[tuple[AdapterUse, ...], set[int]] = {}
    for at in range(3 * prefix._MOST_EPOCHS):
        adapters = (AdapterUse("a", at % 1500),)
        old = epochs.of(adapters)
        seen.setdefault(adapters, set()).add(old)
        epochs.advance(adapters)
        assert epochs.of(adapters) not in seen[adapters]
    assert len(epochs._own) <= prefix._MOST_EPOCHS
