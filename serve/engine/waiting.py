"""Sequences that wait to be admitted, in an order that is fair among tenants and starves nobody."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import zip_longest

from .sequence import Sequence


class WaitingQueue:
    """First come, first served within a tenant; round about among tenants.

    Before all others come sequences that were overtaken `patience` times, then those that ran already and were put
    back. A sequence that found no room may be overtaken by later ones that fit, but only `patience` times.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._returned: dict[str, Sequence] = {}
        self._tenants: OrderedDict[str, dict[str, Sequence]] = OrderedDict()
        self._refused: dict[str, Sequence] = {}
        self._by_id: dict[str, Sequence] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._by_id.values())

    def get(self, identity: str) -> Sequence | None:
        return self._by_id.get(identity)

    def add(self, sequence: Sequence) -> None:
        self._by_id[sequence.id] = sequence
        self._tenants.setdefault(sequence.namespace.salt, {})[sequence.id] = sequence

    def put_back(self, sequence: Sequence) -> None:
        """Add a sequence that was preempted; it goes before all that have not run yet."""
        self._by_id[sequence.id] = sequence
        self._returned[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out without admitting it."""
        del self._by_id[sequence.id]
        self._refused.pop(sequence.id, None)
        if self._returned.pop(sequence.id, None) is None:
            salt = sequence.namespace.salt
            queue = self._tenants[salt]
            del queue[sequence.id]
            if not queue:
                del self._tenants[salt]

    def admit(self, sequence: Sequence) -> None:
        """Take a sequence out to run it: its tenant's next one comes after the other tenants'."""
        self.remove(sequence)
        if sequence.namespace.salt in self._tenants:
            self._tenants.move_to_end(sequence.namespace.salt)
        for refused in self._refused.values():
            if refused.arrival < sequence.arrival and (sequence.adapters or not refused.waits_for_adapters):
                refused.overtaken += 1

    def refuse(self, sequence: Sequence, *, for_adapters: bool = False) -> bool:
        """Note that there was no room for it now, or with `for_adapters` none for its adapters; gives whether it must
        not be overtaken any more by sequences that could take that room."""
        self._refused[sequence.id] = sequence
        sequence.waits_for_adapters = for_adapters
        return self._is_starved(sequence)

    def candidates(self) -> Iterator[Sequence]:
        """All that wait, in the order in which they should be admitted. Take a copy before changing the queue."""
        starved = sorted(filter(self._is_starved, self._refused.values()), key=lambda sequence: sequence.arrival)
        yield from starved
        returned = sorted(self._returned.values(), key=lambda sequence: sequence.arrival)
        yield from (sequence for sequence in returned if not self._is_starved(sequence))
        for turn in zip_longest(*(queue.values() for queue in self._tenants.values())):
            yield from (sequence for sequence in turn if sequence is not None and not self._is_starved(sequence))

    def _is_starved(self, sequence: Sequence) -> bool:
        return sequence.overtaken >= self._patience
