"""A job's events as they come, up to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.job import FINAL
from ...jobs.store import MOST_AT_ONCE
from ..context import request_context
from ..drain import leaving
from ..encoding import DONE, encode_event
from ..errors import error_body, public_record
from ..gateway import gateway_of
from ..sse import EventStream
from .records import event_record
from .workshop import workshop_of

log = logging.getLogger(__name__)

# Somebody else may change a job too, another process for example.
_POLL_SECONDS = 1.0


def stream_events(request: Request, job_id: str, after: int) -> Response:
    """The response that sends the events with numbers above `after`, the oldest first, each in a data line."""
    settings = gateway_of(request).settings

    async def close() -> None:
        """There is nothing to give back."""

    return EventStream(
        _events(request, job_id, after),
        heartbeat=settings.heartbeat_seconds,
        send_timeout=settings.send_timeout,
        on_close=close,
    )


async def _events(request: Request, job_id: str, after: int) -> AsyncGenerator[bytes]:
    workshop, context, drain = workshop_of(request), request_context(request), gateway_of(request).drain
    try:
        while True:
            changed = workshop.changed()
            # In this order: what a job says before its end is not missed.
            job = await asyncio.to_thread(workshop.jobs.read, context.tenant, job_id)
            events = await asyncio.to_thread(
                workshop.jobs.events, context.tenant, job_id, after=after, limit=MOST_AT_ONCE
            )
            for event in events:
                yield encode_event(event_record(job_id, event))
                after = event.number
            if events:
                continue
            if job.status in FINAL:
                break
            if drain.is_draining:
                raise leaving()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _POLL_SECONDS)
    except Exception as error:
        record = public_record(error)
        log.warning("stream failed", extra={"request_id": context.id, "code": record.code}, exc_info=error)
        yield encode_event(error_body(record))
        return
    yield DONE
