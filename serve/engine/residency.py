"""Which adapters are known, in memory and in which slot, and who uses them. No tensors here."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..contract.adapters import AdapterRef
from ..contract.errors import AdapterCapacity, ModelNotFound
from ..contract.messages import AdapterMoves, AdapterResidency, AdapterUse
from .admission import check_adapters
from .block_pool import IntegrityError
from .known_adapter import HostAdapter, KnownAdapter

Lack = Literal["nothing", "reading", "room"]
SlotChange = tuple[int, HostAdapter | None]


class Residency:
    """Two caches, one in the other: what is in a slot is in host memory too.

    A slot is held by the running sequences that use its adapter. Host memory goes to the least recently used adapter
    last; one that runs or is pinned never leaves, one that somebody waits for leaves only for a sequence that is older
    than all who wait for it. So the oldest sequence gets all it needs when those that run have ended.
    """

    def __init__(self, slots: int, budget: int) -> None:
        self.slots = slots
        self.budget = budget
        self.used = self.loads = self.installs = self.evictions = 0
        self._known: dict[str, KnownAdapter] = {}
        self._resident: OrderedDict[str, KnownAdapter] = OrderedDict()
        self._slotted: OrderedDict[str, KnownAdapter] = OrderedDict()
        self._slot_of: dict[str, int] = {}
        self._free = list(range(slots - 1, -1, -1))
        self._pinned: set[str] = set()
        self._missing: set[str] = set()
        self._changes: list[SlotChange] = []
        # Has been read and finds no room; nothing else is read before it is placed, except for an older sequence.
        self.stuck: str | None = None

    @property
    def slot_of(self) -> Mapping[str, int]:
        """The slot of each adapter that has one, by digest."""
        return self._slot_of

    @property
    def has_wishes(self) -> bool:
        """Whether something has to be read."""
        return bool(self._missing)

    def get(self, digest: str) -> KnownAdapter | None:
        return self._known.get(digest)

    def add(self, ref: AdapterRef, folder: Path) -> None:
        """Make a version known; one that was being removed stays after all."""
        known = self._known.get(ref.digest)
        if known is None:
            self._known[ref.digest] = KnownAdapter(ref, folder)
        else:
            known.ref, known.folder, known.is_removed = ref, folder, False

    def remove(self, digest: str) -> None:
        """No new sequence may use it; what it holds is free once the last one has ended. Unknown ones are ignored."""
        known = self._known.get(digest)
        if known is not None:
            known.is_removed = True
            known.asked = None
            self.unpin(digest)
            self._update(known)

    def pin(self, digest: str) -> None:
        """Keep it in its slot once it has one. Raises AdapterCapacity unless a slot stays for the others."""
        known = self._known.get(digest)
        if known is None or known.is_removed or known.is_pinned:
            return
        if len(self._pinned) + 1 >= self.slots:
            raise AdapterCapacity(pins_full(self.slots))
        known.is_pinned = True
        self._pinned.add(digest)

    def unpin(self, digest: str) -> None:
        known = self._known.get(digest)
        if known is not None:
            known.is_pinned = False
            self._pinned.discard(digest)

    def check(self, uses: Sequence[AdapterUse]) -> None:
        """Refuses a sequence that cannot use these. Raises InvalidRequest, ModelNotFound or AdapterCapacity."""
        check_adapters(uses, self.slots)
        digests = tuple(use.digest for use in uses)
        for digest in digests:
            known = self._known.get(digest)
            if known is None or known.is_removed:
                raise ModelNotFound("the adapter was unloaded while the request was on its way", param="model")
        if digests:
            self.check_capacity(digests)

    def check_capacity(self, digests: Iterable[str]) -> None:
        """Raises AdapterCapacity when these do not fit beside those that are pinned, however long one waits."""
        needed = self._pinned.union(digests)
        if len(needed) > self.slots:
            raise AdapterCapacity(
                f"the request needs more than the {self.slots - len(self._pinned)} places for adapters that are not "
                "taken by pinned ones"
            )
        size = sum(self._known[digest].nbytes for digest in needed)
        if size > self.budget:
            raise AdapterCapacity(
                f"the adapters of this request, with those that are pinned, take {size} bytes; the memory for adapters "
                f"is {self.budget}"
            )

    def ask(self, digest: str, turn: int) -> None:
        """Note that a known one shall be read for a LoadAdapter."""
        known = self._known[digest]
        known.asked = turn if known.asked is None else known.asked
        self._update(known)

    def unask(self, digest: str) -> None:
        known = self._known.get(digest)
        if known is not None:
            known.asked = None
            self._update(known)

    def asked(self) -> list[KnownAdapter]:
        """All that are to be read for a LoadAdapter."""
        return [known for digest in self._missing if (known := self._known[digest]).asked is not None]

    def want(self, digests: Iterable[str], arrival: int) -> None:
        """A waiting sequence uses these."""
        for digest in digests:
            known = self._known[digest]
            known.waiting.add(arrival)
            self._update(known)

    def forget(self, digests: Iterable[str], arrival: int) -> None:
        """A sequence does not wait any more."""
        for digest in digests:
            known = self._known[digest]
            known.waiting.discard(arrival)
            self._update(known)

    def lacks(self, digests: tuple[str, ...]) -> Lack:
        """What a waiting sequence still needs before `acquire` succeeds: a reading, or room that others have."""
        slotless = 0
        for digest in digests:
            known = self._known[digest]
            if known.host is None:
                return "room" if self.stuck in digests else "reading"
            slotless += known.slot is None
        if slotless <= len(self._free):
            return "nothing"
        leaving = sum(self._may_leave_slot(known, digests) for known in self._slotted.values())
        return "nothing" if slotless <= len(self._free) + leaving else "room"

    def acquire(self, digests: tuple[str, ...], arrival: int) -> bool:
        """Give a waiting sequence the slots it runs with; False, and nothing changes, if that is not possible now."""
        if self.lacks(digests) != "nothing":
            return False
        for digest in digests:
            known = self._known[digest]
            if known.slot is None:
                self._install(known, self._free.pop() if self._free else self._clear_slot(digests))
            self._slotted.move_to_end(digest)
            self._resident.move_to_end(digest)
            known.waiting.discard(arrival)
            known.running.add(arrival)
        return True

    def release(self, digests: Iterable[str], arrival: int) -> None:
        """A sequence does not run any more."""
        for digest in digests:
            known = self._known[digest]
            known.running.discard(arrival)
            self._update(known)

    def next_missing(self) -> KnownAdapter | None:
        """What has to be read first, for the oldest who wants something; None if there is nothing to do or `stuck` has
        to be placed before."""
        if not self._missing:
            return None
        first = min((self._known[digest] for digest in self._missing), key=lambda known: known.turn)
        if self.stuck is not None and first.turn >= self._known[self.stuck].turn:
            return None
        return first

    def put(self, digest: str, host: HostAdapter) -> bool:
        """Keep what was read of a known adapter in memory; False, and nothing changes, if there is no room now."""
        known = self._known[digest]
        leaving, room = [], self.budget - self.used
        for other in self._leaving(known.age):
            if room >= host.nbytes:
                break
            leaving.append(other)
            room += other.nbytes
        if room < host.nbytes:
            return False
        for other in leaving:
            self.evictions += 1
            other.evictions += 1
            self._evict(other)
            self._update(other)
        known.host, known.nbytes = host, host.nbytes
        known.loads += 1
        self.loads += 1
        self.used += host.nbytes
        self._resident[digest] = known
        self._update(known)
        return True

    def touch(self, digest: str) -> None:
        """It was asked for and is in memory: it is the last to leave."""
        self._resident.move_to_end(digest)

    def take_changes(self) -> list[SlotChange]:
        """What the device has to do before the next step, in this order: a slot, and what goes there or None."""
        changes, self._changes = self._changes, []
        return changes

    def stats(self) -> list[AdapterResidency]:
        """All that are in memory, the least recently used first."""
        return [
            AdapterResidency(
                digest=digest,
                bytes=known.nbytes,
                slot=known.slot,
                pinned=known.is_pinned,
                running=len(known.running),
                waiting=len(known.waiting),
            )
            for digest, known in self._resident.items()
        ]

    def moves(self) -> list[AdapterMoves]:
        """How often those that are known were read and had to leave, where they ever were read."""
        return [
            AdapterMoves(digest, known.loads, known.evictions) for digest, known in self._known.items() if known.loads
        ]

    def check_integrity(
        self, running: Iterable[tuple[int, tuple[str, ...]]], waiting: Iterable[tuple[int, tuple[str, ...]]]
    ) -> None:
        """Raises IntegrityError unless the accounts agree with themselves and with the sequences: arrival, digests."""
        expected: dict[str, tuple[set[int], set[int]]] = {digest: (set(), set()) for digest in self._known}
        for at, sequences in enumerate((running, waiting)):
            for arrival, digests in sequences:
                for digest in digests:
                    expected.setdefault(digest, (set(), set()))[at].add(arrival)
        for digest, users in expected.items():
            known = self._known.get(digest)
            if known is None or (known.running, known.waiting) != users:
                raise IntegrityError(f"the users of adapter {digest} are miscounted")
            known.check_integrity()
        resident = {digest for digest, known in self._known.items() if known.host is not None}
        slots = {digest: known.slot for digest, known in self._known.items() if known.slot is not None}
        if resident != self._resident.keys() or slots != self._slot_of or slots.keys() != self._slotted.keys():
            raise IntegrityError("the tables of resident adapters differ in what they hold")
        if sorted([*slots.values(), *self._free]) != list(range(self.slots)):
            raise IntegrityError("a slot for adapters is lost or held twice")
        if self.used != sum(known.nbytes for known in self._resident.values()) or self.used > self.budget:
            raise IntegrityError(f"adapters take {self.used} bytes of {self.budget}, or are miscounted")
        if self._missing != {digest for digest, known in self._known.items() if known.is_missing}:
            raise IntegrityError("what has to be read is miscounted")
        if self._pinned != {digest for digest, known in self._known.items() if known.is_pinned}:
            raise IntegrityError("pinned adapters are miscounted")

    def _leaving(self, age: float) -> Iterable[KnownAdapter]:
        """Who may leave memory for a sequence of that age, in order: those that nobody needs, the least recently used
        first; then those that only younger sequences wait for, the youngest first."""
        free = [known for known in self._resident.values() if not known.running and not known.is_pinned]
        yield from (known for known in free if not known.waiting)
        if age < math.inf:
            awaited = [known for known in free if known.waiting and known.age > age]
            yield from sorted(awaited, key=lambda known: -known.age)

    def _may_leave_slot(self, known: KnownAdapter, digests: tuple[str, ...]) -> bool:
        return not known.running and not known.is_pinned and known.ref.digest not in digests

    def _clear_slot(self, digests: tuple[str, ...]) -> int:
        """Empty a slot for one of `digests`: the least recently used, if possible of one that nobody waits for."""
        leaving = [known for known in self._slotted.values() if self._may_leave_slot(known, digests)]
        self._uninstall(next((known for known in leaving if not known.waiting), leaving[0]))
        return self._free.pop()

    def _install(self, known: KnownAdapter, slot: int) -> None:
        self.installs += 1
        known.slot = self._slot_of[known.ref.digest] = slot
        self._slotted[known.ref.digest] = known
        self._changes.append((slot, known.host))

    def _uninstall(self, known: KnownAdapter) -> None:
        slot = self._slot_of.pop(known.ref.digest)
        del self._slotted[known.ref.digest]
        known.slot = None
        self._free.append(slot)
        self._changes.append((slot, None))

    def _evict(self, known: KnownAdapter) -> None:
        if known.slot is not None:
            self._uninstall(known)
        del self._resident[known.ref.digest]
        known.host = None
        self.used -= known.nbytes

    def _update(self, known: KnownAdapter) -> None:
        """Bring in line what follows from a changed entry; forget one that was removed and that nobody uses."""
        digest = known.ref.digest
        if known.is_removed and not known.is_used:
            if known.host is not None:
                self._evict(known)
            if self.stuck == digest:
                self.stuck = None
            self._missing.discard(digest)
            self._known.pop(digest, None)
        elif known.is_missing:
            self._missing.add(digest)
        else:
            self._missing.discard(digest)


def pins_full(slots: int) -> str:
    """What is said when one more adapter cannot be pinned."""
    return f"at most {slots - 1} of {slots} places for adapters may be pinned; one has to stay for the others"
