"""Adapters as tables, from what a server or the store says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from .output import format_bytes, print_table

JsonObject = dict[str, Any]

_ONE_LINE = (
    ("variant", "variant"),
    ("rank", "rank"),
    ("alpha", "alpha"),
    ("modules", "modules"),
    ("parameters", "parameters"),
    ("dialect", "dialect"),
    ("base", "base it names"),
    ("source_fingerprint", "source model"),
    ("weights_fingerprint", "base weights"),
    ("template_hash", "chat template"),
    ("parent", "parent"),
)


def print_listing(listing: JsonObject) -> None:
    """The table of all adapters, then their warnings, then what was refused and why."""
    columns = ("name", "current", "versions", "state", "variant", "rank", "targets", "size", "created")
    if listing["data"]:
        print_table(columns, [_row(adapter) for adapter in listing["data"]])
    warnings = [(adapter["name"], text) for adapter in listing["data"] for text in adapter["warnings"]]
    if warnings:
        print()
        print_table(("adapter", "warning"), warnings)
    if listing.get("quarantined"):
        print()
        refused = [(one["name"], _day(one["since"]), one["message"]) for one in listing["quarantined"]]
        print_table(("quarantined", "since", "reason"), refused)


def print_adapter(adapter: JsonObject) -> None:
    """A name and the table of its versions."""
    rows = [
        ("name", adapter["name"]),
        ("current", _current(adapter)),
        ("state", adapter["state"]),
        ("requests", adapter["requests"]),
        *(("warning", text) for text in adapter["warnings"]),
    ]
    print_table(("", ""), rows)
    print()
    columns = ("version", "state", "where", "variant", "rank", "targets", "size", "created", "digest", "")
    print_table(columns, [_version_row(version) for version in adapter["versions"]])


def print_version(version: JsonObject) -> None:
    """Everything that is known of a version."""
    print_table(("", ""), [(name, value) for name, value in _facts(version) if value not in (None, "")])


def placed(version: JsonObject) -> str:
    """ "current, loaded, in a slot" or less."""
    parts = [*(["current"] if version.get("is_current") else []), str(version["state"])]
    if version["state"] == "loaded":
        parts.append({"device": "in a slot", "host": "in memory", "disk": "on disk"}.get(version["residency"], ""))
    return ", ".join(part for part in parts if part)


def _facts(version: JsonObject) -> Iterator[tuple[str, object]]:
    yield "version", version["id"]
    yield "state", placed(version) + (", pinned" if version.get("is_pinned") else "")
    yield "digest", version["digest"]
    if version.get("error"):
        yield "not served", version["error"]["message"]
    yield from (("warning", text) for text in version["warnings"])
    yield from ((label, version.get(key)) for key, label in _ONE_LINE)
    yield "targets", ", ".join(version["targets"])
    yield "weights", format_bytes(version["bytes"])
    yield "size", format_bytes(version["size"])
    yield "created", datetime.fromtimestamp(version["created"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield from ((f"metric {name}", f"{value:g}") for name, value in sorted(version["metrics"].items()))
    yield from ((name, digest) for name, digest in sorted(version["files"].items()))
    if version["state"] != "stored":
        yield "memory", format_bytes(version["memory_bytes"])
        yield "requests", f"{version['requests']} ({version['running']} running, {version['waiting']} waiting)"


def _row(adapter: JsonObject) -> tuple[object, ...]:
    shown = next((one for one in adapter["versions"] if one["is_current"]), adapter["versions"][-1])
    return (
        adapter["name"],
        _current(adapter),
        _numbers(one["number"] for one in adapter["versions"]),
        adapter["state"],
        shown["variant"],
        shown["rank"],
        " ".join(shown["targets"]),
        format_bytes(shown["size"]),
        _day(shown["created"]),
    )


def _version_row(version: JsonObject) -> tuple[object, ...]:
    marks = [mark for mark in ("current", "pinned") if version.get(f"is_{mark}")]
    return (
        version["id"],
        version["state"],
        version["residency"],
        version["variant"],
        version["rank"],
        " ".join(version["targets"]),
        format_bytes(version["size"]),
        _day(version["created"]),
        version["digest"][:12],
        ", ".join(marks),
    )


def _current(adapter: JsonObject) -> str:
    return "none" if adapter["current"] is None else f"{adapter['name']}@{adapter['current']}"


def _numbers(numbers: Iterable[int]) -> str:
    """Version numbers, runs of them joined: "1-3 5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
