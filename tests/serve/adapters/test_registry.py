"""The life of loaded versions: what each call answers, and a machine that tries every order of calls."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from tunechat.serve.adapters.registry import AdapterRegistry, Digests, Load
from tunechat.serve.contract.adapters import AdapterRef, AdapterState
from tunechat.serve.contract.errors import Conflict, ModelNotFound


def ref(name: str, number: int, digest: str | None = None) -> AdapterRef:
    return AdapterRef(name=name, number=number, digest=digest or f"{name}{number}")


def load(registry: AdapterRegistry, version: AdapterRef, *, is_alias: bool = True) -> Digests:
    return registry.commit(registry.stage(version, is_alias=is_alias))


def test_requests_finish_on_their_version() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    first = registry.acquire("a")
    assert load(registry, ref("a", 2)) == ()
    second = registry.acquire("a")
    assert (first.id, second.id) == ("a@1", "a@2")
    with pytest.raises(ModelNotFound):
        registry.acquire("a@1")
    assert registry.release(first) == ("a1",)
    assert registry.release(second) == ()
    assert registry.acquire("a@2").id == "a@2"


def test_an_unused_old_version_is_freed_at_once() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    assert load(registry, ref("a", 2)) == ("a1",)


def test_a_version_loaded_by_number_stays() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1), is_alias=False)
    with pytest.raises(ModelNotFound):
        registry.acquire("a")
    load(registry, ref("a", 1))
    assert load(registry, ref("a", 2)) == ()
    assert registry.acquire("a@1").number == 1 and registry.acquire("a").number == 2


def test_two_loads_at_once() -> None:
    registry = AdapterRegistry()
    one = registry.stage(ref("a", 1))
    with pytest.raises(Conflict):
        registry.stage(ref("a", 2))
    registry.stage(ref("b", 1))
    registry.commit(one)
    assert load(registry, ref("a", 2)) == ("a1",)


def test_a_failed_load_is_invisible() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    under_way = registry.stage(ref("a", 2))
    assert registry.acquire("a").number == 1
    assert registry.fail(under_way) == ("a2",) and registry.fail(under_way) == ()
    assert registry.acquire("a").number == 1


def test_unload_twice() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    user = registry.acquire("a")
    assert registry.unload("a") == ()
    for call in (registry.unload, registry.acquire):
        with pytest.raises(ModelNotFound):
            call("a")
    (draining,) = registry.loaded()
    assert (draining.state, draining.requests) == (AdapterState.DRAINING, 1)
    assert registry.release(user) == ("a1",) and registry.loaded() == ()


def test_unload_during_load() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    under_way = registry.stage(ref("a", 2))
    assert registry.unload("a") == ("a1",)
    again = registry.stage(ref("a", 2))
    with pytest.raises(Conflict):
        registry.commit(under_way)
    assert registry.fail(under_way) == ()
    assert registry.commit(again) == () and registry.acquire("a").number == 2


def test_load_again_while_it_drains() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    user = registry.acquire("a")
    load(registry, ref("a", 2))
    assert load(registry, ref("a", 1)) == ("a2",)
    assert registry.release(user) == () and registry.acquire("a") == user


def test_the_same_content_under_two_names() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1, "same"))
    load(registry, ref("b", 1, "same"))
    assert registry.unload("a") == () and registry.unload("b") == ("same",)


def test_an_id_has_one_content() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    with pytest.raises(Conflict):
        registry.stage(ref("a", 1, "other"))
    registry.acquire("a")
    registry.unload("a")
    with pytest.raises(Conflict):
        registry.stage(ref("a", 1, "other"))


def test_a_release_too_many_is_seen() -> None:
    registry = AdapterRegistry()
    load(registry, ref("a", 1))
    with pytest.raises(ValueError, match="released"):
        registry.release(ref("a", 1))


NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(1, 3)
# Versions 1 of both names are the same content.
CONTENT = {("a", 1): "x", ("b", 1): "x"}


class Life(RuleBasedStateMachine):
    """A server in small: `resident` are the weights it holds; every digest that is let go is dropped at once."""

    loads: Bundle[Load] = Bundle("loads")
    users: Bundle[AdapterRef] = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.registry = AdapterRegistry()
        self.resident: set[str] = set()
        self.open_loads: list[Load] = []
        self.cancelled: list[Load] = []
        self.open_users: Counter[str] = Counter()
        self.alias: dict[str, str] = {}
        self.served: dict[str, AdapterRef] = {}
        self.kept: set[str] = set()

    def free(self, digests: Digests) -> None:
        for digest in digests:
            assert digest in self.resident, "freed twice"
            self.resident.remove(digest)

    @rule(target=loads, name=NAMES, number=NUMBERS, is_alias=st.booleans())
    def stage(self, name: str, number: int, is_alias: bool) -> object:
        version = ref(name, number, CONTENT.get((name, number)))
        if any(load.ref.name == name for load in self.open_loads):
            with pytest.raises(Conflict):
                self.registry.stage(version, is_alias=is_alias)
            return multiple()
        load = self.registry.stage(version, is_alias=is_alias)
        self.open_loads.append(load)
        self.resident.add(version.digest)
        return load

    @rule(load=consumes(loads))
    def commit(self, load: Load) -> None:
        if load in self.cancelled:
            with pytest.raises(Conflict):
                self.registry.commit(load)
            self.cancelled.remove(load)
            self.free(self.registry.fail(load))
            return
        self.open_loads.remove(load)
        freed = self.registry.commit(load)
        identity = load.ref.id
        self.served[identity] = load.ref
        if not load.is_alias:
            self.kept.add(identity)
        else:
            before = self.alias.get(load.ref.name, identity)
            self.alias[load.ref.name] = identity
            if before != identity and before not in self.kept:
                del self.served[before]
        self.free(freed)

    @rule(load=consumes(loads))
    def fail(self, load: Load) -> None:
        (self.cancelled if load in self.cancelled else self.open_loads).remove(load)
        self.free(self.registry.fail(load))
        assert self.registry.fail(load) == ()

    @rule(target=users, name=NAMES, number=st.none() | NUMBERS)
    def acquire(self, name: str, number: int | None) -> object:
        text = name if number is None else f"{name}@{number}"
        expected = self.alias.get(name, "") if number is None else text
        if expected not in self.served:
            with pytest.raises(ModelNotFound):
                self.registry.acquire(text)
            return multiple()
        got = self.registry.acquire(text)
        assert got == self.served[expected]
        self.open_users[got.id] += 1
        return got

    @rule(user=consumes(users))
    def release(self, user: AdapterRef) -> None:
        self.open_users[user.id] -= 1
        self.free(self.registry.release(user))

    @rule(name=NAMES, number=st.none() | NUMBERS)
    def unload(self, name: str, number: int | None) -> None:
        text = name if number is None else f"{name}@{number}"
        gone = [i for i, v in self.served.items() if v.name == name and number in (None, v.number)]
        hit = [load for load in self.open_loads if load.ref.name == name and number in (None, load.ref.number)]
        if not gone and not hit:
            with pytest.raises(ModelNotFound):
                self.registry.unload(text)
            return
        for identity in gone:
            del self.served[identity]
            self.kept.discard(identity)
        if self.alias.get(name) in gone:
            del self.alias[name]
        for load in hit:
            self.open_loads.remove(load)
            self.cancelled.append(load)
        self.free(self.registry.unload(text))

    @invariant()
    def holds_exactly_what_is_needed(self) -> None:
        needed = {version.digest for version in self.served.values()}
        needed |= {load.ref.digest for load in (*self.open_loads, *self.cancelled)}
        for identity, count in self.open_users.items():
            if count:
                name, _, number = identity.partition("@")
                needed.add(CONTENT.get((name, int(number)), f"{name}{number}"))
        assert self.resident == needed

    @invariant()
    def tells_what_is_loaded(self) -> None:
        seen = {one.ref.id: one for one in self.registry.loaded() if one.state is AdapterState.LOADED}
        assert seen.keys() == self.served.keys()
        assert {i for i, one in seen.items() if one.is_current} == set(self.alias.values())
        draining = {one.ref.id for one in self.registry.loaded() if one.state is AdapterState.DRAINING}
        assert draining == {i for i, count in self.open_users.items() if count} - self.served.keys()
        assert {one.ref.id: one.requests for one in self.registry.loaded() if one.requests} == +self.open_users

    @precondition(lambda self: not self.open_loads and not self.cancelled and not +self.open_users)
    @rule()
    def everything_can_go(self) -> None:
        for identity in list(self.served):
            self.unload(*ref_parts(identity))
        assert not self.resident and self.registry.loaded() == ()


def ref_parts(identity: str) -> tuple[str, int]:
    name, _, number = identity.partition("@")
    return name, int(number)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40)
