"""When the server may ask its own model something: not while others would wait for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..gateway import Gateway


class NoMoment(Exception):
    """Nothing can be asked now; the message says why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. A question waits for a moment without requests; after `quiet` one in which nobody queues is enough.

    After `patience` without that it is given up, and what is asked at one time is given `longest` in all.
    """

    quiet: float = 5.0
    patience: float = 60.0
    longest: float = 300.0
    look: float = 0.1


async def wait_for_moment(gateway: Gateway, pace: Pace) -> None:
    """Returns when a question disturbs nobody. Raises NoMoment after `pace.patience`, and when the server leaves."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        if gateway.drain.is_draining:
            raise NoMoment("the server is shutting down")
        if gateway.is_ready and not gateway.drain.is_generating:
            return
        if gateway.is_ready and waited >= pace.quiet and _has_room(gateway):
            return
        if waited >= pace.patience:
            what = "busy with requests" if gateway.is_ready else "without its model"
            raise NoMoment(f"the server was {what} for {waited:.0f} s")
        await asyncio.sleep(pace.look)


def _has_room(gateway: Gateway) -> bool:
    """Whether one more sequence takes nobody's place: nobody queues, and a quarter of the cache is free."""
    stats = gateway.engine.stats
    return not stats.waiting and 4 * stats.blocks_used <= 3 * stats.blocks_total
