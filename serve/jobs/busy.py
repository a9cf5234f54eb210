"""A byte that says whether requests are being answered, in a file that trainers map: they look, and make room."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


class BusyFile:
    """The file, mapped. Of several servers on one home the last one that wrote is heard."""

    def __init__(self, path: Path) -> None:
        """Makes the file, with nobody busy. Raises OSError."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # A file that is longer would be mapped in part; one that is shorter ends the process that reads it.
            os.ftruncate(descriptor, 1)
            self._byte = mmap.mmap(descriptor, 1)
        finally:
            os.close(descriptor)
        self.set(False)

    def set(self, is_busy: bool) -> None:
        """Says it. Costs nothing: no call of the system is made."""
        self._byte[0] = int(is_busy)

    def close(self) -> None:
        """Leaves the file behind, with nobody busy."""
        self.set(False)
        self._byte.close()
