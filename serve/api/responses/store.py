"""Responses on disk, in one SQLite file: each with its items, seen by its tenant alone, for as long as they are kept.

A response owns its whole conversation: it links to every item that it was made from, those of earlier responses
included. So the earlier ones may be deleted or expire, and an item goes with the last response that has it.

Everything about a response is written in one transaction, at its end. Only a response in the background is written
before, so that it can be asked for; one whose server died is found as failed by the next. Transactions survive the
death of the process (write-ahead log); the last ones may be lost with the power.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .items import NormalItem

VERSION = 1
RUNNING = ("queued", "in_progress")
STOPPED = {"code": "server_error", "message": "The server stopped before this answer was complete."}

_SCHEMA = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, created REAL NOT NULL, status TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX responses_by_age ON responses (tenant, created);
CREATE TABLE items (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE links (
    response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE,
    position INTEGER NOT NULL,
    part TEXT NOT NULL CHECK (part IN ('context', 'input', 'output')),
    item TEXT NOT NULL REFERENCES items,
    PRIMARY KEY (response, position)
) WITHOUT ROWID;
CREATE INDEX links_by_item ON links (item);
"""
_ITEMS = "SELECT items.body FROM links JOIN items ON items.id = links.item WHERE links.response = ?"
_WAIT_SECONDS = 10.0


class UnknownVersion(Exception):
    """The file was written by a newer release."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept: `body` is what clients see without its output, the items are in normal form."""

    id: str
    tenant: str
    created: float
    body: dict[str, Any]
    context: Sequence[NormalItem] = ()
    given: Sequence[NormalItem] = ()
    output: Sequence[NormalItem] = ()


class ResponseStore:
    """The file, open. All methods are to be called by the one thread that made it; they raise sqlite3.Error.

    A response is kept for `retention` seconds. Of each tenant the latest `most` are, and of all together as many as
    fit into `most_bytes`: the oldest of the tenant that has most goes first.
    """

    def __init__(
        self, path: Path, *, retention: float, most: int, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        """Opens `path`, or makes it, readable for its owner alone, and mends what a death has left.

        Raises UnknownVersion and OSError too.
        """
        self._retention = retention
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        self._base = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            self._prepare()
            self._fail_interrupted()
            self.tidy()
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        self._base.close()

    def save(self, response: StoredResponse) -> None:
        """Writes `response`, in place of what there was of it, and makes room."""
        kept = dict(response.body)
        kept.pop("output", None)
        parts = (("context", response.context), ("input", response.given), ("output", response.output))
        links = [(part, item) for part, items in parts for item in items]
        with self._transaction():
            self._base.execute(
                "INSERT INTO responses VALUES (:id, :tenant, :created, :status, :body) "
                "ON CONFLICT (id) DO UPDATE SET status = :status, body = :body",
                {
                    "id": response.id,
                    "tenant": response.tenant,
                    "created": response.created,
                    "status": response.body["status"],
                    "body": msgspec.json.encode(kept),
                },
            )
            before = self._linked(response.id)
            self._base.execute("DELETE FROM links WHERE response = ?", (response.id,))
            # Items of the context are written again where another response took them along meanwhile.
            self._base.executemany(
                "INSERT OR IGNORE INTO items VALUES (?, ?, ?)",
                ((item["id"], response.tenant, msgspec.json.encode(item)) for _, item in links),
            )
            self._base.executemany(
                "INSERT INTO links VALUES (?, ?, ?, ?)",
                ((response.id, position, part, item["id"]) for position, (part, item) in enumerate(links)),
            )
            self._drop(before)
            self._make_room(response.tenant)

    def read(self, tenant: str, id_: str) -> dict[str, Any] | None:
        """The response as clients see it."""
        row = self._base.execute(
            "SELECT body FROM responses WHERE id = ? AND tenant = ? AND created > ?", (id_, tenant, self._oldest)
        ).fetchone()
        if row is None:
            return None
        body: dict[str, Any] = msgspec.json.decode(row[0])
        return body | {"output": self._items(id_, "output")}

    def conversation(self, tenant: str, id_: str) -> list[NormalItem] | None:
        """All items up to the end of the response, those of earlier ones included; None while it has not ended."""
        found = self.read(tenant, id_)
        if found is None or found["status"] in RUNNING:
            return None
        return self._items(id_)

    def given(self, tenant: str, id_: str) -> list[NormalItem] | None:
        """The items that the response's own request brought."""
        return None if self.read(tenant, id_) is None else self._items(id_, "input")

    def items(self, tenant: str, ids: Sequence[str]) -> dict[str, NormalItem]:
        """Those of the items that there are, by id."""
        found: dict[str, NormalItem] = {}
        for id_ in ids:
            row = self._base.execute(
                "SELECT body FROM items WHERE id = ? AND tenant = ? AND EXISTS (SELECT 1 FROM links JOIN responses "
                "ON responses.id = links.response WHERE links.item = items.id AND responses.created > ?)",
                (id_, tenant, self._oldest),
            ).fetchone()
            if row is not None:
                found[id_] = msgspec.json.decode(row[0])
        return found

    def delete(self, tenant: str, id_: str) -> bool:
        """Whether there was such a response. What only it had is gone from the file."""
        with self._transaction():
            there = self.read(tenant, id_) is not None
            if there:
                self._remove(id_)
        return there

    def tidy(self) -> None:
        """Removes what is too old, and gives its room back to the disk."""
        with self._transaction():
            self._remove_old()
        self._base.execute("PRAGMA incremental_vacuum").fetchall()

    def _fail_interrupted(self) -> None:
        """Marks as failed what was running when its server died."""
        with self._transaction():
            rows = self._base.execute("SELECT id, body FROM responses WHERE status IN (?, ?)", RUNNING).fetchall()
            for id_, body in rows:
                failed = msgspec.json.decode(body) | {"status": "failed", "error": STOPPED}
                self._base.execute(
                    "UPDATE responses SET status = 'failed', body = ? WHERE id = ?", (msgspec.json.encode(failed), id_)
                )

    def _prepare(self) -> None:
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._base.execute(f"PRAGMA {pragma}").fetchall()
        # What a user deletes is overwritten.
        self._base.execute("PRAGMA secure_delete = ON").fetchall()
        with self._transaction():
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise UnknownVersion(f"the file has version {version}, and this release knows {VERSION}")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @property
    def _oldest(self) -> float:
        return self._clock() - self._retention

    @property
    def _bytes(self) -> int:
        """Bytes of the file that hold something."""
        pages, free, size = (
            self._base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _items(self, response: str, part: str | None = None) -> list[NormalItem]:
        chosen = "" if part is None else " AND links.part = ?"
        values = (response,) if part is None else (response, part)
        rows = self._base.execute(f"{_ITEMS}{chosen} ORDER BY links.position", values)
        return [msgspec.json.decode(row[0]) for row in rows]

    def _make_room(self, tenant: str) -> None:
        self._remove_old()
        count = self._base.execute("SELECT COUNT(*) FROM responses WHERE tenant = ?", (tenant,)).fetchone()[0]
        for _ in range(count - self._most):
            self._remove_oldest(tenant)
        while self._bytes > self._most_bytes:
            largest = self._base.execute(
                "SELECT tenant FROM responses GROUP BY tenant ORDER BY COUNT(*) DESC LIMIT 1"
            ).fetchone()
            if largest is None:
                return
            self._remove_oldest(largest[0])

    def _remove_old(self) -> None:
        for (id_,) in self._base.execute("SELECT id FROM responses WHERE created <= ?", (self._oldest,)).fetchall():
            self._remove(id_)

    def _remove_oldest(self, tenant: str) -> None:
        row = self._base.execute(
            "SELECT id FROM responses WHERE tenant = ? ORDER BY created, rowid LIMIT 1", (tenant,)
        ).fetchone()
        self._remove(row[0])

    def _remove(self, id_: str) -> None:
        linked = self._linked(id_)
        self._base.execute("DELETE FROM responses WHERE id = ?", (id_,))
        self._drop(linked)

    def _linked(self, response: str) -> list[tuple[str]]:
        return self._base.execute("SELECT item FROM links WHERE response = ?", (response,)).fetchall()

    def _drop(self, items: list[tuple[str]]) -> None:
        """Removes those of `items` that no response has any more."""
        self._base.executemany(
            "DELETE FROM items WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE item = ?1)", items
        )
