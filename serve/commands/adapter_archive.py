"""An adapter as a zip: written the same bytes each time, and read without trusting it."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..adapters.adapter import CONFIG, WEIGHTS
from ..adapters.json_file import MAX_JSON
from ..adapters.origin import MANIFEST
from ..contract.errors import UnsupportedFormat

FILES = (CONFIG, WEIGHTS, MANIFEST)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_MAX_ENTRIES = 4096


def pack(folder: Path, target: Path) -> None:
    """Writes the adapter in `folder` as the zip `target`. Equal content makes equal bytes."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name in FILES:
            path = folder / name
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as written:
                shutil.copyfileobj(source, written, _CHUNK)


def unpack(source: Path, folder: Path, max_bytes: int) -> None:
    """Takes the adapter out of the zip `source` into the empty `folder`: its two files, and a manifest if there is one.

    They may lie in a folder of the zip. Nothing else is taken. Raises UnsupportedFormat when it is no zip of one
    adapter, is damaged, or the weights take more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in _chosen(archive.infolist(), source.name):
                name = PurePosixPath(entry.filename).name
                limit = max_bytes if name == WEIGHTS else MAX_JSON
                _take(archive, entry, folder / name, limit)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise UnsupportedFormat(f"{source.name} is no zip that can be read: {str(error)[:200]}") from error


def _chosen(entries: Iterable[zipfile.ZipInfo], label: str) -> list[zipfile.ZipInfo]:
    """The files of the one adapter in the zip."""
    entries = list(entries)
    if len(entries) > _MAX_ENTRIES:
        raise UnsupportedFormat(f"{label} holds more than {_MAX_ENTRIES} files")
    homes = {PurePosixPath(e.filename).parent for e in entries if PurePosixPath(e.filename).name == CONFIG}
    if len(homes) != 1:
        raise UnsupportedFormat(f"{label} holds {len(homes) or 'no'} {CONFIG}; a zip of one adapter has one")
    home = homes.pop()
    wanted = [e for e in entries if PurePosixPath(e.filename) in {home / name for name in FILES}]
    if any(e.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for e in wanted):
        raise UnsupportedFormat(f"{label} is compressed in a way that is not read; use deflate")
    if len({e.filename for e in wanted}) != len(wanted):
        raise UnsupportedFormat(f"{label} holds a file twice")
    return wanted


def _take(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit: int) -> None:
    taken = 0
    with archive.open(entry) as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK):
            taken += len(chunk)
            if taken > limit:
                raise UnsupportedFormat(f"{target.name} in the zip is larger than {limit} bytes")
            writing.write(chunk)
