"""Adapters as zip files: read with everything checked before anything is written, and written as a stream."""

from __future__ import annotations

import io
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from ..adapters.adapter import CONFIG, WEIGHTS
from ..adapters.json_file import MAX_JSON
from ..adapters.origin import MANIFEST
from ..adapters.staging import CARD, MAX_CARD
from ..contract.errors import InvalidRequest, PayloadTooLarge, UnsupportedFormat

FILES = (CONFIG, WEIGHTS, MANIFEST)

MAX_ENTRIES = 256
_MAX_DIRECTORY = 64 << 10  # bytes of the list of entries, which is read whole
_MAX_RATIO = 100  # weights hardly shrink, and the small JSON files are bounded by themselves
_FREE_BYTES = 1 << 20  # below this size any ratio is harmless
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sLQL")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_CHUNK = 1 << 20
_NAME = re.compile(r"[^\x00-\x1f\x7f\\:]{1,512}")


class InvalidArchive(InvalidRequest):
    """An uploaded archive that is not opened, and why."""

    code = "invalid_archive"


def extract(archive: Path, target: Path, limit: int) -> None:
    """Writes the adapter's files in `archive` into the empty folder `target`; other files are left out.

    The files lie at the top or together in one folder. Count, names, kinds, sizes and ratios of all entries are checked
    before anything is written. Raises InvalidArchive, and PayloadTooLarge for more than `limit` bytes.
    """
    with archive.open("rb") as file:
        _check_end(file)
        try:
            with zipfile.ZipFile(file) as opened:
                for entry in _chosen(opened.infolist(), limit):
                    name = PurePosixPath(entry.filename).name
                    with opened.open(entry) as source, (target / name).open("xb") as written:
                        shutil.copyfileobj(source, written, _CHUNK)
        except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error) as error:
            raise InvalidArchive("the archive is damaged, encrypted, or no zip file") from error


def pickled(name: str) -> UnsupportedFormat | None:
    """Why weights in a file of this name are not read; None for other files."""
    if PurePosixPath(name).suffix.lower() not in _PICKLES:
        return None
    return UnsupportedFormat(
        f"{ascii(name)[:120]} may hold a pickle, which can run code and is never read. "
        "Save the adapter with save_pretrained(safe_serialization=True)"
    )


def _check_end(file: BinaryIO) -> None:
    """Looks at the end record (APPNOTE 4.3.16) before zipfile reads the list of entries that it points to."""
    size = file.seek(0, io.SEEK_END)
    if size < _END.size:
        raise InvalidArchive("the body is no zip file")
    file.seek(size - _END.size)
    mark, disk, first, here, total, directory, _, comment = _END.unpack(file.read(_END.size))
    if mark != b"PK\x05\x06" or comment:
        raise InvalidArchive("the body is no zip file, or one with a comment at its end")
    if size >= _END.size + _END64.size:
        file.seek(size - _END.size - _END64.size)
        if file.read(4) == b"PK\x06\x07":
            raise InvalidArchive("the archive is of the zip64 kind; send its files as multipart/form-data")
    if disk or first or here != total:
        raise InvalidArchive("the archive is one of several parts")
    if total > MAX_ENTRIES or directory > _MAX_DIRECTORY:
        raise InvalidArchive(f"the archive has more than {MAX_ENTRIES} entries")
    file.seek(0)


def _chosen(entries: Sequence[zipfile.ZipInfo], limit: int) -> list[zipfile.ZipInfo]:
    """The entries to extract, once all of them are beyond reproach."""
    if len(entries) > MAX_ENTRIES:
        raise InvalidArchive(f"the archive has more than {MAX_ENTRIES} entries")
    seen: set[str] = set()
    for entry in entries:
        _check_entry(entry)
        key = entry.filename.rstrip("/").casefold()
        if key in seen:
            raise InvalidArchive(f"the archive has {entry.filename!a} twice")
        seen.add(key)
    if sum(entry.file_size for entry in entries) > limit:
        raise PayloadTooLarge(f"the archive unpacks to more than {limit} bytes")
    chosen = [entry for entry in entries if not entry.is_dir() and PurePosixPath(entry.filename).name in FILES]
    top = [entry for entry in chosen if "/" not in entry.filename]
    folders = {PurePosixPath(entry.filename).parent for entry in chosen}
    if not top and len(folders) > 1:
        raise InvalidArchive("the archive holds several adapters; send one at a time")
    if WEIGHTS not in {PurePosixPath(entry.filename).name for entry in chosen}:
        for refused in filter(None, (pickled(entry.filename) for entry in entries)):
            raise refused
    wanted = top or chosen
    return wanted + [entry for entry in entries if _is_card(entry, wanted)]


def _is_card(entry: zipfile.ZipInfo, beside: Sequence[zipfile.ZipInfo]) -> bool:
    """Whether it is the model card of the adapter whose files are `beside` it. One that is too large is left out."""
    path = PurePosixPath(entry.filename)
    folders = {PurePosixPath(other.filename).parent for other in beside}
    return path.name == CARD and path.parent in folders and not entry.is_dir() and entry.file_size <= MAX_CARD


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    shown = ascii(name)[:120]
    # zipfile cuts a name at a NUL; the name as it was written is the one to judge.
    path = PurePosixPath(name)
    if entry.orig_filename != name or not _NAME.fullmatch(name) or path.is_absolute() or ".." in path.parts:
        raise InvalidArchive(f"the archive has an entry with a name that is not allowed: {shown}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise InvalidArchive(f"{shown} in the archive is a link or a device")
    if entry.flag_bits & 0x1:
        raise InvalidArchive(f"{shown} in the archive is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InvalidArchive(f"{shown} in the archive is compressed in a way that is not read")
    if entry.file_size > max(_FREE_BYTES, _MAX_RATIO * entry.compress_size):
        raise InvalidArchive(f"{shown} in the archive unpacks to more than {_MAX_RATIO} times its size")
    if path.name in {CONFIG, MANIFEST} and entry.file_size > MAX_JSON:
        raise InvalidArchive(f"{shown} in the archive is larger than {MAX_JSON} bytes")


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._parts.append(bytes(cast(bytes, data)))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def packed(files: Sequence[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """A zip of the open `files`, uncompressed, piece by piece; closes them at the end."""
    sink = _Sink()
    with ExitStack() as stack:
        for _, file in files:
            stack.enter_context(file)
        with zipfile.ZipFile(cast(BinaryIO, sink), "w", zipfile.ZIP_STORED) as archive:
            for name, file in files:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.file_size = size
                with archive.open(entry, "w", force_zip64=size >= 1 << 31) as target:
                    while chunk := file.read(_CHUNK):
                        target.write(chunk)
                        yield sink.take()
        yield sink.take()
