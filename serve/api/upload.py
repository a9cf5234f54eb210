"""An uploaded adapter as a PEFT folder on the store's disk, streamed there, and gone when the request ends."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from ..adapters.adapter import WEIGHTS
from ..adapters.json_file import MAX_JSON
from ..adapters.staging import CARD, MAX_CARD
from ..contract.errors import Overloaded, PayloadTooLarge, Unavailable
from .archive import FILES, InvalidArchive, extract, pickled
from .errors import UnsupportedMediaType

_ZIP_KINDS = frozenset({"application/zip", "application/x-zip-compressed", "application/octet-stream"})
_FOLDER = ".uploads"
_BLOCK = 1 << 20
_AT_ONCE = 4
_STALE_SECONDS = 2 * 86_400  # longer than any upload may take


class Uploads:
    """Takes uploads into the store in `root`, a few at a time, of `limit` bytes each."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root / _FOLDER
        self._limit = limit
        self._open = 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Path]:
        """The folder that the request's body holds: a zip, or its files as parts of a form.

        Raises UnsupportedMediaType, InvalidArchive, PayloadTooLarge, Overloaded, and Unavailable when the disk fails.
        """
        if self._open >= _AT_ONCE:
            raise Overloaded("Other adapters are being uploaded; try again in a moment.", retry_after=5)
        self._open += 1
        folder = self._root / uuid.uuid4().hex
        try:
            with _disk():
                await asyncio.to_thread(self._prepare, folder)
                adapter = await self._read(request, folder)
            yield adapter
        finally:
            self._open -= 1
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))

    def _prepare(self, folder: Path) -> None:
        """Makes the folder, and removes those of servers that died."""
        folder.mkdir(parents=True)
        for other in self._root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)

    async def _read(self, request: Request, folder: Path) -> Path:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        adapter, archive = folder / "adapter", folder / "upload.zip"
        adapter.mkdir()
        if kind == b"multipart/form-data":
            parts = _Parts(options.get(b"boundary", b""), adapter, archive)
            try:
                await _drain(request, parts.write)
                parts.finish()
            finally:
                parts.close()
        elif kind.decode("latin-1").lower() in _ZIP_KINDS:
            with archive.open("xb") as file:
                await _drain(request, file.write)
        else:
            raise UnsupportedMediaType("Send a zip as application/zip, or the adapter's files as multipart/form-data.")
        if archive.exists():
            await asyncio.to_thread(extract, archive, adapter, self._limit)
            await asyncio.to_thread(archive.unlink)
        return adapter


class _Parts:
    """Writes the parts of a form to files. Only an adapter's own files, or one zip, are taken."""

    def __init__(self, boundary: bytes, adapter: Path, archive: Path) -> None:
        self._adapter = adapter
        self._archive = archive
        self._names: list[str] = []
        self._file: BinaryIO | None = None
        self._limit = self._left = 0
        self._is_over = False
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = b""
        if not boundary:
            raise InvalidArchive("the form has no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_done,
                    "on_headers_finished": self._open,
                    "on_part_data": self._write_part,
                    "on_part_end": self.close,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidArchive("the form's boundary is too long") from error

    def write(self, block: bytes) -> None:
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise InvalidArchive("the form is damaged") from error

    def finish(self) -> None:
        """Raises InvalidArchive when the form has no end, or holds nothing."""
        if not self._is_over or not self._names:
            raise InvalidArchive("the form is incomplete, or holds no file")
        if self._archive.name in self._names and len(self._names) > 1:
            raise InvalidArchive("send either one zip or the adapter's files")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._disposition = b""
        self._field.clear()
        self._value.clear()

    def _header_done(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = (options.get(b"filename") or options.get(b"name") or b"").decode("utf-8", "replace")
        files = (*FILES, CARD)
        if name not in files and not name.lower().endswith(".zip"):
            raise pickled(name) or InvalidArchive(
                f"{ascii(name)[:120]} is no file of an adapter; send {', '.join(files)} or one zip"
            )
        path = self._adapter / name if name in files else self._archive
        if path.name in self._names:
            raise InvalidArchive(f"the form has {path.name} twice")
        self._names.append(path.name)
        self._limit = 1 << 62 if path == self._archive or name == WEIGHTS else MAX_CARD if name == CARD else MAX_JSON
        self._left = self._limit
        self._file = path.open("xb")

    def _write_part(self, data: bytes, start: int, end: int) -> None:
        self._left -= end - start
        if self._left < 0:
            raise PayloadTooLarge(f"{self._names[-1]} is larger than {self._limit} bytes")
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._is_over = True


async def _drain(request: Request, write: Callable[[bytes], object]) -> None:
    """Hands the body to `write` in large blocks, in threads."""
    block = bytearray()
    async for chunk in request.stream():
        block += chunk
        if len(block) >= _BLOCK:
            await asyncio.to_thread(write, bytes(block))
            block.clear()
    if block:
        await asyncio.to_thread(write, bytes(block))


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Turns an error of the disk into one of ours."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the upload cannot be kept: {error.strerror or error}", code="store_failed") from error
