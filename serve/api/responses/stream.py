"""A response as a stream of events, numbered, each with its type on a line of its own.

`response.created`, `response.in_progress`, the events of each item, and one of `response.completed`,
`response.incomplete` and `response.failed` at the end, with the whole response in it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ..encoding import encode_typed_event
from ..errors import public_record
from ..events import Usage
from ..tool_steps import AnswerPart
from .exchange import Exchange

log = logging.getLogger(__name__)


async def response_events(
    exchange: Exchange, parts: AsyncIterator[AnswerPart], usage: Usage, request_id: str
) -> AsyncGenerator[bytes]:
    """The events of `exchange`, which reads `parts`; whatever goes wrong is told by the last one."""
    numbers = itertools.count()

    def encoded(event: dict[str, Any]) -> bytes:
        return encode_typed_event({**event, "sequence_number": next(numbers)})

    begun = exchange.reply.as_json("in_progress")
    for kind in ("created", "in_progress"):
        yield encoded({"type": f"response.{kind}", "response": begun})
    try:
        async for part in parts:
            for event in exchange.output.push(part):
                yield encoded(event)
        response = await exchange.conclude(usage)
    except Exception as error:
        record = public_record(error)
        log.warning("stream failed", extra={"request_id": request_id, "code": record.code}, exc_info=error)
        response = await exchange.fail(usage, record)
    yield encoded({"type": f"response.{response['status']}", "response": response})
