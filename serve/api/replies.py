"""The pieces that every reply shares: its head, and tokens with their log-probabilities as OpenAI writes them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .events import Delta, Event, Finished, ScoredToken
from .ports import Text
from .served import ServedModel

# OpenAI's word for "next to impossible"; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What stays the same over a whole reply, all its chunks included."""

    id: str
    model: ServedModel
    created: int = field(default_factory=lambda: int(time.time()))

    def as_json(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": self.model.fingerprint,
        }


@dataclass(slots=True)
class Choice:
    """One choice as it came in: its text and scores in pieces, and how it ended."""

    deltas: list[Delta] = field(default_factory=list)
    reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def scored(self) -> Iterator[ScoredToken]:
        return (scored for delta in self.deltas for scored in delta.scored)


async def collect(events: AsyncIterator[Event], count: int) -> list[Choice]:
    """All `count` choices, complete."""
    choices = [Choice() for _ in range(count)]
    async for event in events:
        if isinstance(event, Finished):
            choices[event.index].reason = event.reason
        else:
            choices[event.index].deltas.append(event)
    return choices


def chat_logprobs(scored: Iterable[ScoredToken], text: Text) -> dict[str, Any]:
    """The `logprobs` object of a chat choice."""
    return {
        "content": [
            {
                **_chat_token(one.token, one.logprob, text),
                "top_logprobs": [_chat_token(*rival, text) for rival in one.top],
            }
            for one in scored
        ],
        "refusal": None,
    }


def _chat_token(token: int, logprob: float | None, text: Text) -> dict[str, Any]:
    return {
        "token": text.token_text(token),
        "logprob": finite(logprob),
        "bytes": list(text.token_bytes(token)),
    }


def completion_logprobs(scored: Iterable[ScoredToken], text: Text) -> dict[str, Any]:
    """The `logprobs` object of a text completion's choice: four lists in step."""
    scored = tuple(scored)
    return {
        "tokens": [text.token_text(one.token) for one in scored],
        "token_logprobs": [finite(one.logprob) for one in scored],
        "top_logprobs": [
            None if one.logprob is None else {text.token_text(token): finite(value) for token, value in one.top}
            for one in scored
        ],
        "text_offset": [one.offset for one in scored],
    }


def finite(logprob: float | None) -> float | None:
    """`logprob`, or the least one that JSON can say."""
    return None if logprob is None else max(logprob, _LEAST_LOGPROB)
