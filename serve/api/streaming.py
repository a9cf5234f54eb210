"""A generation as a stream of events, for any dialect that writes chunks."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from sse_starlette.event import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from .context import RequestContext, request_context
from .disconnect import until_disconnect
from .encoding import DONE, encode_event
from .errors import error_body, public_record
from .gateway import Answer, Gateway
from .sse import COMMENT, EventStream

log = logging.getLogger(__name__)


async def stream_reply(
    request: Request,
    gateway: Gateway,
    answer: Answer,
    chunks: AsyncIterator[dict[str, Any]],
    headers: Mapping[str, str],
) -> Response:
    """The response that sends `chunks`, which read from `answer`, as OpenAI's chat does: one data line each."""
    events = _events(chunks, request_context(request))
    return await stream_events(request, gateway, answer, events, headers)


async def stream_events(
    request: Request,
    gateway: Gateway,
    answer: Answer,
    events: AsyncGenerator[bytes],
    headers: Mapping[str, str],
    beat: ServerSentEvent = COMMENT,
) -> Response:
    """The response that sends `events`, which read from `answer` and tell of their own errors, and `beat` in pauses.

    The status is held back until the first token, or until the first heartbeat is due: what goes wrong before then
    keeps its HTTP status.
    """
    context = request_context(request)
    settings = gateway.settings
    try:
        await until_disconnect(request.receive, answer.wait_first(settings.heartbeat_seconds))
    except BaseException:
        await gateway.release(answer, context)
        raise
    return EventStream(
        events,
        heartbeat=settings.heartbeat_seconds,
        beat=beat,
        send_timeout=settings.send_timeout,
        headers=headers,
        on_close=lambda: gateway.release(answer, context),
    )


async def _events(chunks: AsyncIterator[dict[str, Any]], context: RequestContext) -> AsyncGenerator[bytes]:
    """`chunks` as events and the end mark; an error becomes the last event, and then no end mark follows."""
    try:
        async for chunk in chunks:
            yield encode_event(chunk)
    except Exception as error:
        record = public_record(error)
        log.warning("stream failed", extra={"request_id": context.id, "code": record.code}, exc_info=error)
        yield encode_event(error_body(record))
        return
    yield DONE
