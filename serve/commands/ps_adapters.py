"""The adapters of a running server, as `tunechat ps` shows them: state, place, memory, requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import format_bytes, print_table

if TYPE_CHECKING:
    from .server import Server

TIERS = {"device": "slot", "host": "host", "disk": "disk"}
_SHOWN = ("id", "state", "is_current", "is_pinned", "residency", "memory_bytes", "requests", "running", "waiting")
_UNTOLD = frozenset({403, 404, 405})  # the key may not ask, or the server has no such route


def adapters_of(server: Server, models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a version that is served or being let go.

    With a key that may not look at adapters they are those of `models`, without what is known of their memory.
    """
    response = server.send("GET", "/v1/adapters")
    if response.status_code in _UNTOLD:
        versions = [model for model in models if model.get("parent") and model["id"] == model.get("root")]
        return [{"id": version["id"], "state": version.get("state")} for version in versions]
    if response.is_error:
        from .server import error_of

        raise error_of(response)
    versions = [version for adapter in response.json()["data"] for version in adapter["versions"]]
    return [{key: version.get(key) for key in _SHOWN} for version in versions if version["state"] != "stored"]


def is_lively(adapter: dict[str, Any]) -> bool:
    """Whether it takes memory, is used, changes its state, or nothing but its name is known."""
    return (
        "residency" not in adapter
        or adapter["residency"] != "disk"
        or adapter["state"] != "loaded"
        or bool(adapter["requests"] or adapter["is_pinned"])
    )


def counted(adapters: Sequence[dict[str, Any]]) -> str:
    """ "5 served: 2 in slots, 1 in host memory, 2 on disk", with the bytes that they take."""
    places = Counter(adapter.get("residency") for adapter in adapters)
    words = {"device": "in slots", "host": "in host memory", "disk": "on disk"}
    parts = [f"{places[tier]} {word}" for tier, word in words.items() if places[tier]]
    nbytes = sum(adapter.get("memory_bytes") or 0 for adapter in adapters)
    text = f"{len(adapters)} served" + (f": {', '.join(parts)}" if parts else "")
    return f"{text}, {format_bytes(nbytes)}" if nbytes else text


def print_adapters(adapters: Sequence[dict[str, Any]]) -> None:
    """The table of `adapters`."""
    columns = ("adapter", "state", "where", "memory", "requests", "running", "waiting", "")
    print_table(columns, [_row(adapter) for adapter in adapters])


def _row(adapter: dict[str, Any]) -> tuple[object, ...]:
    if "residency" not in adapter:
        return adapter["id"], adapter["state"], "", "", "", "", "", ""
    marks = [mark for mark in ("current", "pinned") if adapter[f"is_{mark}"]]
    return (
        adapter["id"],
        adapter["state"],
        TIERS.get(adapter["residency"], adapter["residency"]),
        format_bytes(adapter["memory_bytes"]) if adapter["memory_bytes"] else "",
        adapter["requests"],
        adapter["running"],
        adapter["waiting"],
        ", ".join(marks),
    )
