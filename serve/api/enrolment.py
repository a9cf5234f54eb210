"""What the store holds for the base that serves, read at once: which versions may be served, and why others may not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..adapters.origin import check_origin
from ..adapters.store import AdapterStore, StoredAdapter
from ..contract.adapters import AdapterManifest
from ..contract.base import BaseManifest
from ..contract.errors import ErrorRecord, TunechatError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A stored version, and all that is stored under its name. `problem` says why it is not served; None when it is."""

    manifest: AdapterManifest
    folder: Path
    is_current: bool
    is_pinned: bool
    stored: StoredAdapter
    problem: ErrorRecord | None = None


def read_stored(store: AdapterStore, base: BaseManifest, only: StoredAdapter | None = None) -> list[Enrolled]:
    """Every stored version, or those of `only`, the current one of a name last. Reads manifests only.

    What writers left behind that died is removed first.
    """
    if only is None:
        store.sweep()
    found = []
    for stored in store.all() if only is None else (only,):
        for manifest in sorted(stored.versions, key=lambda one: (one.number == stored.current, one.number)):
            found.append(_enrolled(store, base, stored, manifest))
    return found


def _enrolled(store: AdapterStore, base: BaseManifest, stored: StoredAdapter, manifest: AdapterManifest) -> Enrolled:
    problem: ErrorRecord | None = None
    folder = store.root / manifest.name / str(manifest.number)
    try:
        folder = store.folder(manifest)
        check_origin(manifest, base)
    except TunechatError as error:
        problem = error.record
    number = manifest.number
    return Enrolled(manifest, folder, number == stored.current, number in stored.pinned, stored, problem)


def withdraw(store: AdapterStore, manifest: AdapterManifest, previous: int | None, is_new: bool) -> None:
    """Undoes a publication whose load failed: the name means `previous` again, and a new version is gone."""
    try:
        stored = store.of(manifest.name)
        if stored.current == manifest.number and previous not in (None, manifest.number):
            store.activate(f"{manifest.name}@{previous}")
        if is_new:
            store.remove(manifest.ref.id)
    except TunechatError as error:
        log.error("a refused adapter stays stored", extra={"adapter": manifest.ref.id, "reason": error.message})
