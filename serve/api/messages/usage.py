"""Token counts and reasons for the end of an answer, in Anthropic's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..events import Usage

_REASONS = {"tool_calls": "tool_use", "stop": "end_turn", "length": "max_tokens"}


def usage_json(usage: Usage) -> dict[str, Any]:
    """`input_tokens` are those that were not found in the cache: Anthropic's clients add both up."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


@dataclass(frozen=True, slots=True)
class Ending:
    """How answers of one request end. `fills_context`: the context has no room for all of `max_tokens`."""

    fills_context: bool

    def as_json(self, reason: str | None, stop: str | None) -> dict[str, Any]:
        """`stop_reason` and `stop_sequence` of a choice that ended by `reason`, and stop string `stop` if any."""
        if reason == "stop" and stop is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        if reason == "length" and self.fills_context:
            return {"stop_reason": "model_context_window_exceeded", "stop_sequence": None}
        return {"stop_reason": _REASONS.get(reason or "", "end_turn"), "stop_sequence": None}
