"""A server of a scripted engine in a process of its own, for tests of signals and sockets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[3]


@dataclass
class Process:
    popen: subprocess.Popen[str]
    ready: str = ""
    _client: httpx.Client | None = None

    @property
    def address(self) -> tuple[str, int]:
        found = re.search(r"http://([\d.]+):(\d+)/v1", self.ready)
        assert found is not None
        return found[1], int(found[2])

    @property
    def client(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(base_url="http://{}:{}".format(*self.address), timeout=10)
        return self._client

    def wait_ready(self) -> None:
        """Reads the ready line."""
        if self.popen.stderr is not None:
            self.ready = self.popen.stderr.readline()

    def kill(self) -> None:
        if self._client is not None:
            self._client.close()
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.communicate()

    def end(self) -> tuple[int, str]:
        """Exit status and the rest of what it said."""
        _, errors = self.popen.communicate(timeout=20)
        return self.popen.returncode, errors


Start = Callable[..., Process]


def begin(entry: Path, options: dict[str, Any]) -> Process:
    """A process that may not be ready yet; see scripted_server for `options`."""
    return Process(
        subprocess.Popen(
            [sys.executable, "-m", "tests.serve.api.scripted_server", str(entry), json.dumps(options)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
