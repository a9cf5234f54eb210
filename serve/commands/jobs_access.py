"""Where a command finds jobs: with the server that runs, or in the home folder while none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..contract.errors import Unavailable
from ..settings import Settings


class Jobs(Protocol):
    """What both a server and a store do; answers have the shape of the server's."""

    def show(self, id_: str) -> dict[str, Any]:
        """The job."""

    def act(self, id_: str, action: str) -> dict[str, Any]:
        """The job after `action`: cancel, pause or resume."""

    def listing(self, most: int) -> list[dict[str, Any]]:
        """The latest jobs, the newest first."""

    def checkpoints(self, id_: str) -> list[dict[str, Any]]:
        """The job's checkpoints that requests can ask for, the newest first."""

    def events(self, id_: str, most: int, *, until: str | None = None) -> list[dict[str, Any]]:
        """The latest events of a job, the oldest of them first: at most so many, and none up to the event `until`."""

    def stream(self, id_: str, after: str | None = None) -> Iterator[dict[str, Any]]:
        """The events behind `after`, or all, as they happen, until the job has ended."""


@contextmanager
def reached_jobs(settings: Settings) -> Iterator[tuple[Jobs, bool]]:
    """The jobs of the server that the settings name, else of the home folder; and whether a server has them.

    Raises Unavailable when there is neither, and when a URL was given and nothing answers there.
    """
    from .server import Server

    with Server.admin_of(settings) as server:
        if settings.url or server.answers():
            from .jobs_server import ServerJobs

            yield ServerJobs(server), True
            return
    from ..jobs.database import Database
    from .jobs_store import StoredJobs

    path = StoredJobs.path(settings)
    if not path.is_file():
        raise Unavailable(f"no server answers at {settings.server_url}, and there are no jobs in {settings.home}")
    database = Database(path)
    try:
        yield StoredJobs(database, settings), False
    finally:
        database.close()
