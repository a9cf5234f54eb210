from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import AdapterCapacity, InvalidRequest, ModelNotFound
from tunechat.serve.contract.messages import AdapterUse
from tunechat.serve.engine.block_pool import IntegrityError
from tunechat.serve.engine.residency import Residency

NAMES = "abcde"
SIZES = {"a": 1, "b": 2, "c": 3, "d": 1, "e": 2}


@dataclass(frozen=True)
class Bytes:
    nbytes: int


def ref(digest: str) -> AdapterRef:
    return AdapterRef(name=digest, number=1, digest=digest)


def uses(*digests: str) -> tuple[AdapterUse, ...]:
    return tuple(map(AdapterUse, digests))


def residency(slots: int = 2, budget: int = 6, known: str = NAMES, read: str = "") -> Residency:
    made = Residency(slots, budget)
    for digest in known:
        made.add(ref(digest), Path(digest))
    for digest in read:
        assert made.put(digest, Bytes(SIZES[digest]))
    return made


def start(made: Residency, digests: str, arrival: int) -> bool:
    made.want(tuple(digests), arrival)
    return made.acquire(tuple(digests), arrival)


class ResidencyMachine(RuleBasedStateMachine):
    """Sequences that want adapters, get them, are put back and end, while adapters are read, pinned and removed."""

    @initialize(slots=st.integers(1, 3), budget=st.integers(3, 9))
    def build(self, slots: int, budget: int) -> None:
        self.it = residency(slots, budget)
        self.running: dict[int, tuple[str, ...]] = {}
        self.waiting: dict[int, tuple[str, ...]] = {}
        self.arrivals = 0
        self.on_device: dict[int, Bytes] = {}

    @rule(digest=st.sampled_from(NAMES))
    def add(self, digest: str) -> None:
        self.it.add(ref(digest), Path(digest))

    @rule(digest=st.sampled_from(NAMES))
    def remove(self, digest: str) -> None:
        self.it.remove(digest)
        known = self.it.get(digest)
        assert (known is not None) == (
            digest in {d for s in (*self.running.values(), *self.waiting.values()) for d in s}
        )

    @rule(digest=st.sampled_from(NAMES), pins=st.sampled_from([True, True, False]))
    def pin(self, digest: str, pins: bool) -> None:
        if not pins:
            self.it.unpin(digest)
            return
        try:
            self.it.pin(digest)
        except AdapterCapacity:
            assert len(self.pinned) == self.it.slots - 1
        self.drop_impossible()

    @rule(digests=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3))
    def come(self, digests: set[str]) -> None:
        for digest in digests:
            self.it.add(ref(digest), Path(digest))
        wanted = tuple(sorted(digests))
        try:
            self.it.check(uses(*wanted))
        except (AdapterCapacity, InvalidRequest, ModelNotFound):
            return
        self.it.want(wanted, self.arrivals)
        self.waiting[self.arrivals] = wanted
        self.arrivals += 1

    @rule(digests=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), stays=st.booleans())
    def run(self, digests: set[str], stays: bool) -> None:
        """All that a sequence goes through when nothing stands in its way."""
        arrival = self.arrivals
        self.come(digests)
        for _ in range(4):
            if arrival not in self.waiting or self.try_to_admit(arrival):
                break
            self.read()
        if arrival in self.running and not stays:
            self.it.release(self.running.pop(arrival), arrival)

    @rule(digest=st.sampled_from(NAMES))
    def ask(self, digest: str) -> None:
        known = self.it.get(digest)
        if known is not None and not known.is_removed and known.host is None:
            self.it.ask(digest, self.arrivals)

    @rule()
    def read(self) -> None:
        """One round of what the flow does."""
        if self.it.stuck is not None:
            self.place(self.it.stuck)
        known = self.it.next_missing()
        if known is not None:
            known.nbytes = SIZES[known.ref.digest]
            self.drop_impossible()
            if known.is_missing:
                self.place(known.ref.digest)

    def place(self, digest: str) -> None:
        known = self.it.get(digest)
        self.it.stuck = None
        if known is None or not known.is_missing:
            return
        before = self.resident
        may_go = {
            name
            for name in before - self.pinned
            # Those who wait for what has to leave are younger than all that wait for what comes.
            if not self.users(name) and (not self.waiters(name) or min(self.waiters(name)) > known.age)
        }
        if self.it.put(digest, Bytes(SIZES[digest])):
            assert before - self.resident <= may_go
        else:
            assert self.resident == before
            assert sum(SIZES[name] for name in before - may_go) + SIZES[digest] > self.it.budget
            if known.waiting:
                self.it.stuck = digest
        self.it.unask(digest)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        self.try_to_admit(data.draw(st.sampled_from(sorted(self.waiting))))

    def try_to_admit(self, arrival: int) -> bool:
        digests = self.waiting[arrival]
        held = {d for s in self.running.values() for d in s}
        if not self.it.acquire(digests, arrival):
            missing = any(known.host is None for d in digests if (known := self.it.get(d)) is not None)
            assert missing or len(held | self.in_slots & self.pinned | set(digests)) > self.it.slots
            return False
        del self.waiting[arrival]
        self.running[arrival] = digests
        assert held <= self.in_slots
        return True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["end", "put back"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        arrival = data.draw(st.sampled_from(sorted(self.running)))
        digests = self.running.pop(arrival)
        if how == "put back":
            self.it.want(digests, arrival)
            self.waiting[arrival] = digests
        self.it.release(digests, arrival)
        self.drop_impossible()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        arrival = data.draw(st.sampled_from(sorted(self.waiting)))
        self.it.forget(self.waiting.pop(arrival), arrival)

    def drop_impossible(self) -> None:
        for arrival, digests in list(self.waiting.items()):
            try:
                self.it.check_capacity(digests)
            except AdapterCapacity:
                self.it.forget(self.waiting.pop(arrival), arrival)

    @invariant()
    def is_whole(self) -> None:
        if not hasattr(self, "it"):
            return
        self.it.check_integrity(self.running.items(), self.waiting.items())
        for slot, host in self.it.take_changes():
            if host is None:
                del self.on_device[slot]
            else:
                assert slot not in self.on_device
                self.on_device[slot] = host  # type: ignore[assignment]
        assert {self.it.slot_of[digest] for digest in self.in_slots} == set(self.on_device)
        assert sum(SIZES[digest] for digest in self.resident) == self.it.used <= self.it.budget
        assert len(self.pinned) < max(1, self.it.slots)

    def teardown(self) -> None:
        """Whatever happened: the oldest is served, and then the next one."""
        if not hasattr(self, "it"):
            return
        for arrival, digests in list(self.running.items()):
            self.it.release(digests, arrival)
        self.running.clear()
        self.drop_impossible()
        while self.waiting:
            oldest = min(self.waiting)
            for _ in range(8 * len(NAMES)):
                if oldest not in self.waiting or self.try_to_admit(oldest):
                    break
                self.read()
            else:
                raise AssertionError("the oldest got nowhere")
            self.it.release(self.running.pop(oldest, ()), oldest)
            self.drop_impossible()
        for digest in NAMES:
            self.it.remove(digest)
        self.is_whole()
        assert (self.it.used, self.it.stats(), self.on_device) == (0, [], {})

    @property
    def pinned(self) -> set[str]:
        return {name for name in NAMES if (known := self.it.get(name)) is not None and known.is_pinned}

    @property
    def resident(self) -> set[str]:
        return {entry.digest for entry in self.it.stats()}

    @property
    def in_slots(self) -> set[str]:
        return set(self.it.slot_of)

    def users(self, digest: str) -> set[int]:
        return {arrival for arrival, digests in self.running.items() if digest in digests}

    def waiters(self, digest: str) -> set[int]:
        return {arrival for arrival, digests in self.waiting.items() if digest in digests}


ResidencyMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestResidencyMachine = ResidencyMachine.TestCase


def test_the_least_recently_used_leaves_first() -> None:
    it = residency(slots=2, budget=4, read="abd")
    assert start(it, "a", 1)
    it.release(("a",), 1)
    assert it.put("e", Bytes(2))
    assert [entry.digest for entry in it.stats()] == ["d", "a", "e"]
    assert it.evictions == 1
    it.touch("d")
    assert it.put("c", Bytes(3))
    assert [entry.digest for entry in it.stats()] == ["d", "c"]


def test_a_slot_goes_to_the_least_recently_used_of_those_that_nobody_awaits() -> None:
    it = residency(slots=2, budget=9, read="abd")
    for arrival, digest in enumerate("ab"):
        assert start(it, digest, arrival)
        it.release((digest,), arrival)
    it.want(("a",), 5)
    assert start(it, "d", 6)
    assert set(it.slot_of) == {"a", "d"}
    assert it.take_changes() == [(0, Bytes(1)), (1, Bytes(2)), (1, None), (1, Bytes(1))]


def test_what_runs_or_is_pinned_keeps_its_slot() -> None:
    it = residency(slots=3, budget=9, read="abde")
    assert start(it, "a", 0)
    it.pin("b")
    assert start(it, "b", 1)
    it.release(("b",), 1)
    assert start(it, "d", 2)
    assert not start(it, "e", 3)
    assert it.lacks(("e",)) == "room"
    it.release(("d",), 2)
    assert it.acquire(("e",), 3)
    assert set(it.slot_of) == {"a", "b", "e"}


def test_a_composition_takes_all_its_slots_or_none() -> None:
    it = residency(slots=3, budget=9, read="abde")
    assert start(it, "ab", 0)
    assert not start(it, "de", 1)
    assert set(it.slot_of) == {"a", "b"}
    assert start(it, "bd", 2)
    it.release(("a", "b"), 0)
    assert it.acquire(("d", "e"), 1)
    assert set(it.slot_of) == {"b", "d", "e"}


def test_one_place_stays_unpinned() -> None:
    it = residency(slots=2)
    it.pin("a")
    it.pin("a")
    with pytest.raises(AdapterCapacity, match="at most 1 of 2"):
        it.pin("b")
    it.remove("a")
    it.pin("b")
    with pytest.raises(AdapterCapacity):
        residency(slots=1).pin("a")


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        (uses("a", "a"), InvalidRequest, "named twice"),
        (uses("a", "b", "c"), InvalidRequest, r"3 adapters .* takes 2"),
        (uses("x"), ModelNotFound, "unloaded"),
        ((AdapterUse("a", float("nan")),), InvalidRequest, "finite"),
        (uses("b", "e"), AdapterCapacity, "take 8 bytes"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(
    wanted: tuple[AdapterUse, ...], error: type[Exception], says: str
) -> None:
    it = residency(slots=2, budget=6)
    for digest in "be":
        known = it.get(digest)
        assert known is not None
        # What was in memory before has left its size behind.
        known.nbytes = 4
    with pytest.raises(error, match=says):
        it.check(wanted)
    it.check(())
    it.check(uses("a", "b"))


def test_a_composition_that_pins_leave_no_place_for_is_refused() -> None:
    it = residency(slots=3, budget=6)
    it.pin("a")
    it.pin("b")
    it.check(uses("c"))
    it.check(uses("a", "b", "c"))
    with pytest.raises(AdapterCapacity, match="not taken by pinned"):
        it.check(uses("c", "d"))


def test_the_oldest_who_waits_is_read_for_first() -> None:
    it = residency()
    it.want(("a",), 7)
    it.want(("b",), 3)
    it.ask("c", 5)
    first = it.next_missing()
    assert first is not None
    assert first.ref.digest == "b"
    it.stuck = "a"
    assert it.next_missing() is first
    it.stuck = "b"
    assert it.next_missing() is None


def test_removed_while_used_it_stays_until_the_last_has_ended_and_can_come_back() -> None:
    it = residency(read="ab")
    assert start(it, "a", 0)
    it.remove("a")
    with pytest.raises(ModelNotFound):
        it.check(uses("a"))
    assert it.used == 3
    it.add(ref("a"), Path("elsewhere"))
    it.check(uses("a"))
    it.remove("a")
    it.release(("a",), 0)
    assert it.get("a") is None
    assert it.used == 2
    assert it.take_changes() == [(0, Bytes(1)), (0, None)]


def test_accounts_that_contradict_themselves_are_found() -> None:
    it = residency(read="ab")
    assert start(it, "a", 0)
    it.check_integrity([(0, ("a",))], [])
    for running, waiting in (([], []), ([(0, ("a",))], [(1, ("b",))]), ([(0, ("a", "x"))], [])):
        with pytest.raises(IntegrityError, match="users"):
            it.check_integrity(running, waiting)
    it.used += 1
    with pytest.raises(IntegrityError, match="bytes"):
        it.check_integrity([(0, ("a",))], [])
