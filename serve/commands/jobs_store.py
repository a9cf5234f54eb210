"""Fine-tuning jobs of the home folder, for the commands that look at them while no server runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ..api.auth import tenant_of
from ..api.tuning.following import MOST_CHECKPOINTS
from ..api.tuning.records import checkpoint_record, event_record, job_record, number_of
from ..contract.errors import InvalidRequest
from ..jobs.database import Database
from ..jobs.job import FINAL
from ..jobs.store import MOST_AT_ONCE, JobStore
from ..settings import Settings
from .jobs_server import JsonObject

_LOOK_SECONDS = 0.5


class StoredJobs:
    """What a server with these settings would say of the jobs in `database`. Errors are those of the store."""

    def __init__(self, database: Database, settings: Settings) -> None:
        keys = settings.plain_admin_keys or settings.plain_api_keys
        self._tenant = tenant_of(keys[0]) if keys else ""
        self._store = JobStore(database)

    @staticmethod
    def path(settings: Settings) -> Path:
        """Where the database of a home is, if there is one."""
        return settings.home / "jobs.db"

    def show(self, id_: str) -> JsonObject:
        return job_record(self._store.read(self._tenant, id_))

    def act(self, id_: str, action: str) -> JsonObject:
        """The job after `action`. Whoever runs it hears of it within a second; a resumed one waits for a server."""
        changes = {"cancel": self._store.cancel, "pause": self._store.pause, "resume": self._store.resume}
        if action not in changes:
            raise InvalidRequest(f"jobs know no {action}")
        return job_record(changes[action](self._tenant, id_))

    def listing(self, most: int) -> list[JsonObject]:
        found: list[JsonObject] = []
        after = None
        while page := self._store.page(self._tenant, after=after, limit=min(most - len(found), MOST_AT_ONCE)):
            found += map(job_record, page)
            after = page[-1].id
            if len(found) >= most:
                break
        return found

    def checkpoints(self, id_: str) -> list[JsonObject]:
        job = self._store.read(self._tenant, id_)
        found = self._store.checkpoints(self._tenant, id_, limit=MOST_CHECKPOINTS)
        return [checkpoint_record(job, one) for one in found if one.adapter]

    def events(self, id_: str, most: int, *, until: str | None = None) -> list[JsonObject]:
        least = 0 if until is None else number_of("ftevent", id_, until)
        found: list[JsonObject] = []
        before = None
        while len(found) < most:
            limit = min(most - len(found), MOST_AT_ONCE)
            page = self._store.latest_events(self._tenant, id_, before=before, limit=limit)
            new = [event for event in page if event.number > least]
            found += (event_record(id_, event) for event in new)
            if not new or len(new) < len(page):
                break
            before = new[-1].number
        return found[::-1]

    def stream(self, id_: str, after: str | None = None) -> Iterator[JsonObject]:
        last = 0 if after is None else number_of("ftevent", id_, after)
        while True:
            # In this order: what a job says before its end is not missed.
            job = self._store.read(self._tenant, id_)
            events = self._store.events(self._tenant, id_, after=last, limit=MOST_AT_ONCE)
            for event in events:
                yield event_record(id_, event)
                last = event.number
            if not events:
                if job.status in FINAL:
                    return
                time.sleep(_LOOK_SECONDS)
