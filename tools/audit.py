"""The log of every decision on a tool call: one line of JSON each, without secrets, in a file of bounded size."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .records import Decision, Status, ToolCall

AUDIT_NAME = "tools.log"
MAX_BYTES = 8 << 20
_LONGEST = 200  # characters of one value
_MOST = 32  # values of one call
_HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|cookie|credential|session", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?:sk|pk|ghp|gho|ghs|xox[abp]|hf|glpat|AKIA)[-_A-Za-z0-9]{12,}|[Bb]earer\s+\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+"
    r"|-----BEGIN [A-Z ]+-----.*|(?i:password|secret|token|api[_-]?key)\s*[=:]\s*\S+",
    re.DOTALL,
)
_URL = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)


class Audit:
    """Appends to a file that only its owner can read. Past `limit` bytes the file becomes `NAME.1`, once."""

    def __init__(self, path: Path, limit: int = MAX_BYTES) -> None:
        self.path = path
        self._limit = limit
        self._lock = threading.Lock()

    def write(self, call: ToolCall, decision: Decision | None, status: Status, *, seconds: float, size: int) -> None:
        """Adds one line. Raises OSError when it cannot be written: what cannot be audited must not go unnoticed."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": call.id[:_LONGEST],
            "tool": call.name[:_LONGEST],
            "arguments": redacted(call.arguments),
            "permission": None if decision is None else str(decision.permission),
            "allowed": decision is not None and decision.allowed,
            "by": None if decision is None else decision.by,
            "rule": None if decision is None else decision.rule[:_LONGEST],
            "status": str(status),
            "seconds": round(seconds, 3),
            "bytes": size,
        }
        data = (json.dumps(line, ensure_ascii=True, default=str) + "\n").encode("ascii")
        with self._lock:
            self._turn_over(len(data))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def _turn_over(self, more: int) -> None:
        try:
            full = self.path.lstat().st_size + more > self._limit
        except FileNotFoundError:
            return
        if full:
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))


def redacted(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of `arguments` may be written down: short values, none that look secret, URLs without user and query."""
    return {
        str(name)[:_LONGEST]: _HIDDEN if _SECRET_NAME.search(str(name)) else _shown(value, 0)
        for name, value in list(arguments.items())[:_MOST]
    }


def _shown(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 1 << 64 else "[a large number]"
    if isinstance(value, str):
        text = _SECRET_TEXT.sub(_HIDDEN, _URL.sub(_bare, value[: _LONGEST * 8]))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}[...]"
    if depth >= 3:
        return "[...]"
    if isinstance(value, Mapping):
        return {
            str(name)[:_LONGEST]: _HIDDEN if _SECRET_NAME.search(str(name)) else _shown(inner, depth + 1)
            for name, inner in list(value.items())[:_MOST]
        }
    if isinstance(value, list | tuple):
        return [_shown(inner, depth + 1) for inner in value[:_MOST]]
    return f"[{type(value).__name__}]"


def _bare(match: re.Match[str]) -> str:
    try:
        parts = urlsplit(match[0])
        port = f":{parts.port}" if parts.port else ""
        return urlunsplit((parts.scheme, f"{parts.hostname or ''}{port}", parts.path, "", ""))
    except ValueError:
        return _HIDDEN
