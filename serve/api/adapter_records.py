"""Adapters and their versions as the API shows them: what is stored, where it is now, and who uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..adapters.quarantine import Quarantined
from ..adapters.registry import LoadedAdapter
from ..adapters.store import StoredAdapter
from ..contract.adapters import AdapterManifest, AdapterState
from ..contract.errors import ErrorRecord
from ..contract.messages import AdapterResidency
from .special_names import name_warnings

# From the liveliest to the least lively: what a name is whose bare form means nothing.
_LIVELY = (AdapterState.LOADED, AdapterState.LOADING, AdapterState.DRAINING, AdapterState.STORED)
_ABSENT = AdapterResidency(digest="", bytes=0)


@dataclass(frozen=True, slots=True)
class Look:
    """What is served and what is in memory, at one moment."""

    served: Mapping[str, LoadedAdapter]
    resident: Mapping[str, AdapterResidency]
    problems: Mapping[str, ErrorRecord]

    @staticmethod
    def of(
        served: Iterable[LoadedAdapter], resident: Iterable[AdapterResidency], problems: Mapping[str, ErrorRecord]
    ) -> Look:
        return Look({one.ref.id: one for one in served}, {one.digest: one for one in resident}, problems)


def tier(resident: AdapterResidency | None) -> str:
    """Where an adapter's weights are: "disk", "host" or "device"."""
    if resident is None:
        return "disk"
    return "host" if resident.slot is None else "device"


def version_record(manifest: AdapterManifest, stored: StoredAdapter, look: Look) -> dict[str, Any]:
    """One version."""
    ref = manifest.ref
    served = look.served.get(ref.id)
    resident = look.resident.get(ref.digest)
    problem = look.problems.get(ref.id)
    told = msgspec.to_builtins(manifest)
    told.pop("format")
    return {
        "object": "adapter.version",
        "id": ref.id,
        **told,
        "state": str(served.state if served else AdapterState.STORED),
        "labels": sorted(label for label, number in stored.labels.items() if number == ref.number),
        "is_current": ref.number == stored.current,
        "is_pinned": ref.number in stored.pinned,
        "residency": tier(resident),
        "memory_bytes": (resident or _ABSENT).bytes,
        "requests": served.requests if served else 0,
        "running": (resident or _ABSENT).running,
        "waiting": (resident or _ABSENT).waiting,
        "warnings": [*manifest.warnings, *name_warnings(ref.name)],
        "error": None if problem is None else {"code": problem.code, "message": problem.message},
    }


def adapter_record(stored: StoredAdapter, look: Look) -> dict[str, Any]:
    """A name and all its versions."""
    versions = [version_record(manifest, stored, look) for manifest in stored.versions]
    current = next((one for one in versions if one["is_current"]), None)
    states = {one["state"] for one in versions}
    liveliest = next(str(state) for state in _LIVELY if str(state) in states)
    newest = current or versions[-1]
    return {
        "object": "adapter",
        "id": stored.name,
        "name": stored.name,
        "owner": stored.owner,
        "current": stored.current,
        "state": current["state"] if current else liveliest,
        "requests": sum(one["requests"] for one in versions),
        "warnings": newest["warnings"],
        "versions": versions,
    }


def quarantined_record(held: Quarantined) -> dict[str, Any]:
    """A folder that was refused."""
    return {
        "object": "adapter.quarantined",
        "name": held.name,
        "state": str(AdapterState.QUARANTINED),
        "code": held.error.code,
        "message": held.error.message,
        "since": held.since,
    }
