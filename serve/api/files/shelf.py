"""The files of one server, open while it runs, and bounded in how many are uploaded at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.requests import Request

from ...contract.errors import Overloaded, TunechatError, Unavailable, Unsupported
from ...jobs.database import Database
from ...jobs.files import FileStore
from ..settings import ApiSettings

log = logging.getLogger(__name__)

_AT_ONCE = 4


class Shelf:
    """Opens the database of jobs with its lifespan. One that cannot be opened stops nothing but what needs it."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._base: Database | None = None
        self._files: FileStore | None = None
        self._uploads = 0

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open on entry, closed on exit."""
        await asyncio.to_thread(self._open)
        try:
            yield
        finally:
            if self._base is not None:
                await asyncio.to_thread(self._base.close)

    @property
    def base(self) -> Database | None:
        """The database, which jobs share; None where there is none."""
        return self._base

    @property
    def root(self) -> Path:
        """The folder that the database lies in. Raises Unsupported where there is none."""
        if self._settings.job_store is None:
            raise Unsupported("This server takes no files.")
        return self._settings.job_store.parent

    @property
    def files(self) -> FileStore:
        """Raises Unsupported when this server takes no files, and Unavailable when it cannot."""
        if self._settings.job_store is None:
            raise Unsupported("This server takes no files.")
        if self._files is None:
            raise Unavailable("Files can be neither stored nor read now; see the server's log.", code="store_failed")
        return self._files

    @contextlib.contextmanager
    def uploading(self) -> Iterator[FileStore]:
        """The files, to add one. Raises Overloaded while others are being added."""
        if self._uploads >= _AT_ONCE:
            raise Overloaded("Other files are being uploaded; try again in a moment.", retry_after=5)
        self._uploads += 1
        try:
            yield self.files
        finally:
            self._uploads -= 1

    def _open(self) -> None:
        path = self._settings.job_store
        if path is None:
            return
        try:
            self._base = Database(path)
            self._files = FileStore(self._base, path.parent / "files", most_bytes=self._settings.max_file_bytes)
            self._files.sweep()
        except TunechatError as error:
            log.error("files cannot be stored: %s", error)


def shelf_of(request: Request) -> Shelf:
    """The shelf of the application that `request` came to."""
    shelf: Shelf = request.app.state.shelf
    return shelf
