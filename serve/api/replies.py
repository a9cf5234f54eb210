"""The pieces that every reply shares: its head, and tokens with their log-probabilities as OpenAI writes them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .events import ScoredToken
from .gateway import ServedModel
from .ports import Text

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
