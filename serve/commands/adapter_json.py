"""What is said of stored adapters without a server, in the shape in which the server's routes say it."""

from __future__ import annotations

from typing import Any

import msgspec

from ..adapters.quarantine import Quarantined
from ..adapters.store import StoredAdapter
from ..contract.adapters import AdapterManifest, AdapterState

JsonObject = dict[str, Any]


def version_json(version: AdapterManifest, stored: StoredAdapter) -> JsonObject:
    """A version that no server has loaded."""
    about = msgspec.to_builtins(version)
    del about["format"]
    return {
        "object": "adapter.version",
        "id": version.ref.id,
        "state": AdapterState.STORED.value,
        "is_current": version.number == stored.current,
        "is_pinned": version.number in stored.pinned,
        "residency": "disk",
        "memory_bytes": 0,
        "requests": 0,
        "running": 0,
        "waiting": 0,
        **about,
        "error": None,
    }


def adapter_json(stored: StoredAdapter) -> JsonObject:
    """A name and all its versions."""
    warnings = dict.fromkeys(warning for version in stored.versions for warning in version.warnings)
    return {
        "object": "adapter",
        "id": stored.name,
        "name": stored.name,
        "current": stored.current,
        "state": AdapterState.STORED.value,
        "requests": 0,
        "warnings": list(warnings),
        "versions": [version_json(version, stored) for version in stored.versions],
    }


def quarantined_json(held: Quarantined) -> JsonObject:
    """A refused folder."""
    return {
        "object": "adapter.quarantined",
        "name": held.name,
        "state": AdapterState.QUARANTINED.value,
        "code": held.error.code,
        "message": held.error.message,
        "since": held.since,
    }
