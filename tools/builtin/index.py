"""A full-text index of the documents in one folder, in SQLite: passages that hold the words asked for, best first.

The index is brought up to date before each search: files that are new or changed (by size and time) are read again.
Words are those of SQLite's unicode61 tokenizer; characters of Chinese and Japanese are words each. The ranking is BM25,
as FTS5 computes it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolFailed
from ..paths import Found, Root

ENDINGS = frozenset((".adoc", ".csv", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".org", ".py", ".rst")) | {
    ".sql",
    ".tex",
    ".toml",
    ".tsv",
    ".txt",
    ".xml",
    ".yaml",
    ".yml",
}
MAX_FILE = 2 << 20  # bytes; larger files are left out
MAX_FILES = 20_000
MAX_PASSAGE = 1200  # characters
MAX_WORDS = 32  # of a question
_DEADLINE = 20.0  # seconds of one search, updating included
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, line INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_by_path ON passages (path);
CREATE VIRTUAL TABLE IF NOT EXISTS spoken USING fts5 (words, tokenize = 'unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: its path below the folder, the number of its first line, its text."""

    path: str
    line: int
    text: str


class DocumentIndex:
    """The index of `folder`, kept in a file of `home`. May be used from several threads and processes."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._root = Root(folder)
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._path = home / "search" / f"{name}.db"
        self._lock = threading.Lock()

    def search(self, question: str, most: int = 5) -> list[Passage]:
        """Up to `most` passages that hold words of `question`, best first. Raises ToolFailed for one without words."""
        words = words_of(question)[:MAX_WORDS]
        if not words:
            raise ToolFailed("the question holds no words", param="query")
        # Each word is quoted, so that none is read as FTS5's query language.
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(words))
        with self._lock, closing(self._connect()) as database:
            self._update(database)
            rows = database.execute(
                "SELECT p.path, p.line, p.text FROM spoken JOIN passages p ON p.id = spoken.rowid "
                "WHERE spoken MATCH ? ORDER BY bm25(spoken), p.id LIMIT ?",
                (match, most),
            ).fetchall()
        return [Passage(*row) for row in rows]

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._path, timeout=10.0)
        until = time.monotonic() + _DEADLINE
        database.set_progress_handler(lambda: int(time.monotonic() > until), 10_000)
        try:
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise ToolFailed("the index of the documents cannot be opened now") from error
            # It holds nothing that the documents do not: a broken one is made again.
            self._path.unlink(missing_ok=True)
            raise ToolFailed("the index of the documents was broken and is made again; ask once more") from error
        return database

    def _update(self, database: sqlite3.Connection) -> None:
        known = {path: (size, changed) for path, size, changed in database.execute("SELECT * FROM files")}
        until = time.monotonic() + _DEADLINE / 2
        found = {file.path: file for file in self._root.walked(most=MAX_FILES) if _is_document(file)}
        with database:
            for path in known.keys() - found.keys():
                _forget(database, path)
        for path, file in found.items():
            if known.get(path) != (file.size, file.changed):
                with database:
                    _forget(database, path)
                    self._add(database, file)
            if time.monotonic() > until:
                break  # what is left is read at the next search

    def _add(self, database: sqlite3.Connection, file: Found) -> None:
        database.execute("INSERT INTO files VALUES (?, ?, ?)", (file.path, file.size, file.changed))
        try:
            data = self._root.read(file.path, MAX_FILE)
        except ToolFailed:
            return
        if b"\0" in data[:8192]:
            return
        for line, text in passages_of(data.decode("utf-8", "replace")):
            row = database.execute(
                "INSERT INTO passages (path, line, text) VALUES (?, ?, ?)", (file.path, line, text)
            ).lastrowid
            words = _spaced(f"{file.path} {text}")
            database.execute("INSERT INTO spoken (rowid, words) VALUES (?, ?)", (row, words))


def passages_of(text: str) -> Iterator[tuple[int, str]]:
    """`text` in pieces of at most MAX_PASSAGE characters, cut between paragraphs or lines, each with its first line."""
    piece: list[str] = []
    size, first = 0, 1
    for number, line in enumerate(text.splitlines(), 1):
        for start in range(0, max(1, len(line)), MAX_PASSAGE):
            part = line[start : start + MAX_PASSAGE]
            if piece and (size + len(part) > MAX_PASSAGE or (not part.strip() and size > MAX_PASSAGE // 2)):
                yield first, "\n".join(piece).strip("\n")
                piece, size = [], 0
            if not piece:
                if not part.strip():
                    continue
                first = number
            piece.append(part)
            size += len(part) + 1
    if piece:
        yield first, "\n".join(piece).strip("\n")


def words_of(text: str) -> list[str]:
    """The words of a question, as the index has them."""
    return _WORD.findall(_spaced(text))


def _spaced(text: str) -> str:
    return _CJK.sub(r" \1 ", text)


def _is_document(file: Found) -> bool:
    return file.size <= MAX_FILE and os.path.splitext(file.path)[1].lower() in ENDINGS


def _forget(database: sqlite3.Connection, path: str) -> None:
    database.execute("DELETE FROM spoken WHERE rowid IN (SELECT id FROM passages WHERE path = ?)", (path,))
    database.execute("DELETE FROM passages WHERE path = ?", (path,))
    database.execute("DELETE FROM files WHERE path = ?", (path,))
