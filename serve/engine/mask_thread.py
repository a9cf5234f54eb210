"""Computes the masks of grammars on a thread of its own, while the model computes the logits they are for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from ..contract.errors import ErrorRecord
from .constraint import Constraint, Mask
from .grammar_compiler import brief
from .plan import Plan

logger = logging.getLogger(__name__)

# How long a step of several sequences waits for masks: a share of its own time, and at least so much.
_SHARE = 0.25
_LEAST_SECONDS = 0.002
# Where nobody else would be held up, it is better to wait than to compute the logits twice.
_ALONE_SECONDS = 0.25
# How many tokens without a choice are given at once.
_MOST_FORCED = 32

# float32 [256, 8]: what eight tokens have added to their logits, by the byte of the mask that allows some of them.
_BIAS_OF_BYTE = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") == 0, -np.inf, 0.0
).astype(np.float32)

_FAILED = ErrorRecord(
    code="grammar_failed",
    message="the grammar of this request could not be followed; the server's log says why",
    http_status=500,
)


class MaskThread:
    """One thread that gives constraints their next masks, those first whose last one was quick.

    All matchers are touched on this thread alone once their sequence has begun: copies of one grammar lock each other
    out, and one that waits for such a lock may hold the interpreter's. `renew` takes a constraint whose matcher has met
    a limit that it shares with others, and orders it here again.
    """

    def __init__(self, vocab_size: int, renew: Callable[[Constraint], None]) -> None:
        self._vocab_size = vocab_size
        self._renew = renew
        self._orders: SimpleQueue[Constraint] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def order(self, constraint: Constraint) -> None:
        """Have a constraint's mask computed. Returns at once."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="grammar masks", daemon=True)
                    self._thread.start()
        self._orders.put(constraint)

    def _work(self) -> None:
        for constraint in self._in_turn():
            if constraint.is_closed:
                continue
            started = time.monotonic()
            try:
                self._compute(constraint)
            except BaseException:
                # A panic in llguidance arrives as an exception that is no Exception. It must cost one request.
                logger.exception("a mask could not be computed")
                constraint.publish(error=_FAILED)
            constraint.cost = time.monotonic() - started

    def _in_turn(self) -> Iterator[Constraint]:
        """What was ordered: those first whose last mask was quick, to within a factor of two; of these the oldest."""
        queue: list[tuple[int, int, Constraint]] = []
        turn = 0
        while True:
            while not queue or not self._orders.empty():
                constraint = self._orders.get()
                heappush(queue, (int(constraint.cost * 1e6).bit_length(), turn, constraint))
                turn += 1
            yield heappop(queue)[2]

    def _compute(self, constraint: Constraint) -> None:
        compiled = constraint.compiled
        if compiled is None:
            raise RuntimeError("masks are computed after the grammar was compiled")
        if constraint.matcher is None:
            compiled.copies += 1
            constraint.matcher = compiled.matcher.deep_copy()
        matcher = constraint.matcher
        while constraint.consumed < len(constraint.tokens) and not matcher.is_error():
            matcher.consume_token(constraint.tokens[constraint.consumed])
            constraint.consumed += 1
        ends = np.array(sorted({*compiled.eos_token_ids, *constraint.stop_token_ids}), dtype=np.int64)
        forced: list[int] = []
        while True:
            if matcher.is_stopped() and not matcher.is_error():
                constraint.publish(forced=tuple(forced))
                return
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            if matcher.is_error():
                self._give_up(constraint)
                return
            may_end = matcher.is_accepting()
            only = _only_one(bits) if constraint.may_force and not may_end and len(forced) < _MOST_FORCED else None
            if only is None or only in ends:
                break
            if not matcher.consume_token(only):
                self._give_up(constraint)
                return
            forced.append(only)
        constraint.consumed += len(forced)
        bias = _BIAS_OF_BYTE.take(bits, axis=0).reshape(-1)[: self._vocab_size]
        if may_end:
            bias[ends] = 0.0
        elif not bits.any():
            constraint.publish(error=_dead_end("no token can follow the text"), forced=tuple(forced))
            return
        constraint.publish(Mask(bias, ends), forced=tuple(forced))

    def _give_up(self, constraint: Constraint) -> None:
        """A matcher has failed. If others may have brought it to its limit, try again with one of its own: what a
        sequence may write depends on nobody else."""
        compiled, matcher = constraint.compiled, constraint.matcher
        if compiled is None or matcher is None:
            raise RuntimeError("only a matcher can fail")
        if not constraint.is_private:
            compiled.is_worn = True
            if compiled.copies > 1:
                self._renew(constraint)
                return
        reason = matcher.get_error()
        logger.warning("a grammar failed after %d tokens: %s", len(constraint.tokens), brief(reason))
        constraint.publish(error=_dead_end(brief(reason)))


def _only_one(bits: NDArray[np.uint8]) -> int | None:
    """The one id that a mask allows; None if it allows none or several."""
    places = np.flatnonzero(bits)
    if len(places) != 1:
        return None
    byte = int(bits[places[0]])
    return None if byte & (byte - 1) else 8 * int(places[0]) + byte.bit_length() - 1


def await_masks(plan: Plan, seconds: float) -> None:
    """Wait for the masks that a step of so many seconds needs, as long as is fair to the others in it."""
    pending = [
        work.sequence.grammar
        for work in plan
        if work.samples and work.sequence.grammar is not None and not work.sequence.grammar.is_ready
    ]
    if not pending:
        return
    patience = _ALONE_SECONDS if len(pending) == len(plan) else max(_LEAST_SECONDS, _SHARE * seconds)
    deadline = time.monotonic() + patience
    for constraint in pending:
        if not constraint.wait(deadline - time.monotonic()):
            return


def _dead_end(reason: str) -> ErrorRecord:
    return ErrorRecord(
        code="grammar_too_complex",
        message=f"the grammar of this request could not be followed to its end: {reason}; use a simpler one",
        http_status=400,
    )
