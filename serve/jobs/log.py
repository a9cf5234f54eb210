"""A log that stays below a size: the latest lines are always in it, the oldest go."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 8192


class CappedLog:
    """`path`, and `path` with ".1" for what came before: together at most `most` bytes.

    A disk that is full loses lines of the log and nothing else.
    """

    def __init__(self, path: Path, most: int = 8 << 20) -> None:
        self._path = path
        self._half = max(1, most // 2)
        self._file: BinaryIO | None = None
        self._size = 0
        self._tail: deque[bytes] = deque()
        self._tail_size = 0

    def write(self, data: bytes) -> None:
        self._remember(data)
        data = data[-self._half :]
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = self._open()
            if self._size + len(data) > self._half:
                self._file.close()
                self._file = None
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
                self._file = self._open()
            self._file.write(data)
            self._size += len(data)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def last_lines(self, most: int = 5, longest: int = 500) -> list[str]:
        """The last lines that were written and are not blank, as printable text."""
        text = b"".join(self._tail)[-_TAIL_BYTES:].decode("utf-8", "replace")
        lines = (_printable(line)[:longest].rstrip() for line in text.splitlines())
        return [line for line in lines if line][-most:]

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(descriptor).st_size
        return os.fdopen(descriptor, "ab", buffering=0)

    def _remember(self, data: bytes) -> None:
        self._tail.append(data[-_TAIL_BYTES:])
        self._tail_size += len(self._tail[-1])
        while self._tail_size - len(self._tail[0]) >= _TAIL_BYTES:
            self._tail_size -= len(self._tail.popleft())


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)
