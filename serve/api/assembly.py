"""One sequence's tokens become text that may be shown: detokenised, cut at stop strings, log-probabilities in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..contract.errors import TunechatError
from ..contract.messages import SequenceOutput, TokenLogprob
from ..text.stop import StopMatcher
from .events import Delta, Event, Finished, ScoredToken
from .ports import Detokenizer


class SequenceText:
    """Feeds on one sequence's outputs and gives its events.

    A log-probability leaves with the text it belongs to: never before it, never without it. After a stop string the
    tokens that lie wholly beyond the cut are dropped. Raises the sequence's own error when it has one.
    """

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        *,
        stops: StopMatcher | None = None,
        min_tokens: int = 0,
        offset: int = 0,
    ) -> None:
        self.index = index
        self.tokens = 0
        self.finished = False
        self._detokenizer = detokenizer
        self._stops = stops
        self._min_tokens = min_tokens
        self._seen = offset
        self._shown = offset
        self._pending: deque[tuple[int, ScoredToken]] = deque()

    def feed(self, output: SequenceOutput) -> Iterator[Event]:
        """The events that `output` brings; the last of a sequence is a Finished."""
        if output.error is not None:
            raise TunechatError.from_record(output.error)
        text, stopped = self._take(output)
        reason: str | None = "stop" if stopped else output.finish
        if output.finish is not None and not stopped:
            self.tokens += output.stop_token is not None
            tail, stopped = self._tail()
            text += tail
            reason = "stop" if stopped else output.finish
        self._shown += len(text)
        scored = self._release(ended=reason is not None, stopped=stopped) if text or reason else ()
        if text or scored:
            yield Delta(self.index, text, scored)
        yield from self._finish(reason)

    def _finish(self, reason: str | None) -> Iterator[Event]:
        if reason:
            self.finished = True
            yield Finished(self.index, reason, self._stops.matched if self._stops else None)

    def _take(self, output: SequenceOutput) -> tuple[str, bool]:
        if self._stops is None and output.logprobs is None:
            self.tokens += len(output.tokens)
            piece = self._detokenizer.push(output.tokens)
            self._seen += len(piece)
            return piece, False
        text = ""
        scores: list[TokenLogprob] | list[None] = output.logprobs or [None] * len(output.tokens)
        for token, score in zip(output.tokens, scores, strict=True):
            self.tokens += 1
            start = self._seen
            piece = self._detokenizer.push((token,))
            self._seen += len(piece)
            if score is not None:
                self._pending.append((self._seen, scored_token(score, start)))
            shown, stopped = self._pass_stops(piece)
            text += shown
            if stopped:
                return text, True
        return text, False

    def _pass_stops(self, piece: str) -> tuple[str, bool]:
        if self._stops is None or not piece or self.tokens < self._min_tokens:
            return piece, False
        shown, matched = self._stops.push(piece)
        return shown, matched is not None

    def _tail(self) -> tuple[str, bool]:
        """What is still held back when the sequence ends: half a character, half a stop string."""
        piece = self._detokenizer.finish()
        self._seen += len(piece)
        if self._stops is None:
            return piece, False
        shown, _ = self._stops.push(piece)
        shown += self._stops.finish()
        return shown, self._stops.matched is not None

    def _release(self, *, ended: bool, stopped: bool) -> tuple[ScoredToken, ...]:
        released: list[ScoredToken] = []
        while self._pending:
            end, scored = self._pending[0]
            if (stopped or not ended) and scored.offset >= self._shown:
                break  # half a character, which what comes next may still cut off
            if not ended and end > self._shown:
                break
            released.append(scored)
            self._pending.popleft()
        return tuple(released)


def scored_token(score: TokenLogprob, offset: int) -> ScoredToken:
    """`score` as the API's dialects use it."""
    return ScoredToken(score.token, score.logprob, tuple((token, value) for token, value in score.top), offset)
