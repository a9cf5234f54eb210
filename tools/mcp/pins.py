"""What each MCP server's tools looked like when they were approved: a tool that changes later is not run.

The first time a server is seen, its tools are taken as they are: the user has just configured it. After that a tool
whose name, description or schema is another must be approved again (`tunechat tools approve SERVER`): a server may
change a harmless tool into a harmful one after it has been trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...serve.contract.errors import ConfigError

PINS_NAME = "mcp_tools.json"


def fingerprint(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """The SHA-256 of all that a model is told about a tool."""
    told = json.dumps([name, description, schema], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(told.encode("ascii")).hexdigest()


class Pins:
    """The approved fingerprints, by server and tool, in a file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def unapproved(self, server: str, tools: Mapping[str, str]) -> set[str]:
        """Which of `tools` (names and fingerprints) may not be run. A server that is new is approved with all."""
        with self._lock:
            known = self._read()
            if server not in known:
                self._write({**known, server: dict(tools)})
                return set()
            return {name for name, print_ in tools.items() if known[server].get(name) != print_}

    def approve(self, server: str, tools: Mapping[str, str]) -> None:
        """Takes the server's tools as they are now."""
        with self._lock:
            self._write({**self._read(), server: dict(tools)})

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            # Starting afresh would approve whatever the servers say now.
            raise ConfigError(f"{self._path} is damaged; delete it to approve all tools anew") from error
        if not isinstance(content, dict) or not all(isinstance(tools, dict) for tools in content.values()):
            raise ConfigError(f"{self._path} is damaged; delete it to approve all tools anew")
        return content

    def _write(self, content: dict[str, dict[str, str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        staged = self._path.with_name(f".{self._path.name}-{uuid.uuid4().hex}")
        staged.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(staged, self._path)
