"""Which versions are loaded, who uses them, and when one may be freed. Counts only: no files, no weights, no locks.

A load is staged, done elsewhere, then committed: until then nobody sees it. `acquire` looks a name up and counts the
user in one call, so that a version cannot go away in between. All calls must come from one thread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..contract.adapters import AdapterRef, AdapterState
from ..contract.errors import Conflict, ModelNotFound
from .names import parse_id

Digests = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """A load under way. `is_alias` says that the bare name is to mean `ref` from the commit on."""

    ref: AdapterRef
    is_alias: bool


@dataclass(slots=True)
class _Version:
    """`is_kept` is set for versions that were asked for by number: they stay when the alias moves on."""

    ref: AdapterRef
    is_kept: bool = False
    users: int = 0


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """A version as the registry sees it now. `requests` use it; `is_current` says that the bare name means it."""

    ref: AdapterRef
    state: AdapterState
    requests: int
    is_current: bool


@dataclass(slots=True)
class AdapterRegistry:
    """Loaded versions by id, aliases by name, and loads under way by name.

    Methods that let something go return the digests that nobody needs any longer: their weights may be freed. A digest
    is needed by every loaded or draining version and every load under way that has it, whatever they are called.
    """

    _served: dict[str, _Version] = field(default_factory=dict)
    _draining: dict[str, _Version] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _loads: dict[str, Load] = field(default_factory=dict)
    _cancelled: set[Load] = field(default_factory=set)
    _needed: Counter[str] = field(default_factory=Counter)

    def stage(self, ref: AdapterRef, *, is_alias: bool = True) -> Load:
        """Begins a load. End it with `commit` or `fail`.

        Raises Conflict while another load of that name is under way, and for other content under an id that is in use.
        """
        if ref.name in self._loads:
            raise Conflict(f"{self._loads[ref.name].ref.id} is being loaded; try again when that is done")
        version = self._served.get(ref.id) or self._draining.get(ref.id)
        if version is not None and version.ref.digest != ref.digest:
            raise Conflict(f"{ref.id} is loaded with other content; a version never changes")
        load = Load(ref, is_alias)
        self._loads[ref.name] = load
        self._needed[ref.digest] += 1
        return load

    def commit(self, load: Load) -> Digests:
        """Makes the loaded version visible and moves the alias; users of the old version finish on it.

        Raises Conflict when it was unloaded meanwhile: `fail` then ends the load.
        """
        if self._loads.get(load.ref.name) is not load:
            raise Conflict(f"{load.ref.id} was unloaded while it was being loaded")
        del self._loads[load.ref.name]
        version = self._served.get(load.ref.id) or self._draining.pop(load.ref.id, None)
        if version is None:
            version = _Version(load.ref)
            self._needed[load.ref.digest] += 1
        self._served[load.ref.id] = version
        version.is_kept = version.is_kept or not load.is_alias
        freed: Digests = ()
        if load.is_alias:
            before = self._aliases.get(load.ref.name)
            self._aliases[load.ref.name] = load.ref.id
            if before is not None and before != load.ref.id and not self._served[before].is_kept:
                freed = self._retire(before)
        return freed + self._let_go(load.ref.digest)

    def fail(self, load: Load) -> Digests:
        """Ends a load that did not succeed. Nothing that is served changes; a second call does nothing."""
        if self._loads.get(load.ref.name) is load:
            del self._loads[load.ref.name]
        elif load in self._cancelled:
            self._cancelled.discard(load)
        else:
            return ()
        return self._let_go(load.ref.digest)

    def acquire(self, text: str) -> AdapterRef:
        """The version that "support" or "support@3" means now, with one more user. Raises ModelNotFound."""
        name, number = parse_id(text)
        version = self._served.get(text if number is not None else self._aliases.get(name, ""))
        if version is None:
            raise ModelNotFound(f"adapter {text} is not loaded", param="model")
        version.users += 1
        return version.ref

    def release(self, ref: AdapterRef) -> Digests:
        """One user less. Raises ValueError when there was none: a count that is wrong must not stay unseen."""
        version = self._served.get(ref.id) or self._draining.get(ref.id)
        if version is None or version.users == 0:
            raise ValueError(f"{ref.id} was released more often than it was acquired")
        version.users -= 1
        if version.users == 0 and ref.id in self._draining:
            del self._draining[ref.id]
            return self._let_go(ref.digest)
        return ()

    def unload(self, text: str) -> Digests:
        """Forgets "support@3", or every version of "support": new requests fail at once, running ones finish.

        A load of it that is under way is cancelled. Raises ModelNotFound when there was nothing to forget.
        """
        name, number = parse_id(text)
        gone = [v.ref.id for v in self._served.values() if v.ref.name == name and number in (None, v.ref.number)]
        load = self._loads.get(name)
        if load is not None and number in (None, load.ref.number):
            self._cancelled.add(self._loads.pop(name))
        elif not gone:
            raise ModelNotFound(f"adapter {text} is not loaded", param="model")
        if self._aliases.get(name) in gone:
            del self._aliases[name]
        return tuple(digest for version in gone for digest in self._retire(version))

    def loaded(self) -> tuple[LoadedAdapter, ...]:
        """Everything that is loaded, draining or being loaded, by name and number."""
        current = set(self._aliases.values())
        found = [LoadedAdapter(v.ref, AdapterState.LOADED, v.users, i in current) for i, v in self._served.items()]
        found += [LoadedAdapter(v.ref, AdapterState.DRAINING, v.users, False) for v in self._draining.values()]
        under_way = (load.ref for load in self._loads.values())
        found += [LoadedAdapter(r, AdapterState.LOADING, 0, False) for r in under_way if r.id not in self._served]
        return tuple(sorted(found, key=lambda one: (one.ref.name, one.ref.number, one.state)))

    def _retire(self, identity: str) -> Digests:
        version = self._served.pop(identity)
        version.is_kept = False
        if version.users:
            self._draining[identity] = version
            return ()
        return self._let_go(version.ref.digest)

    def _let_go(self, digest: str) -> Digests:
        self._needed[digest] -= 1
        if self._needed[digest]:
            return ()
        del self._needed[digest]
        return (digest,)
