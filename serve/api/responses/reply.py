"""The response object: what the request asked for, what came of it, and what it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...contract.errors import ErrorRecord
from ..events import Usage
from ..schemas.responses import ResponsesRequest
from ..served import ServedModel
from .items import NormalItem
from .tools import told_choice

_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Reply:
    """The response to `request`; `told` are the tools that the model is told of."""

    id: str
    model: ServedModel
    request: ResponsesRequest
    told: Sequence[dict[str, Any]]
    is_stored: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def as_json(
        self,
        status: str,
        output: Sequence[NormalItem] = (),
        *,
        usage: dict[str, Any] | None = None,
        error: ErrorRecord | None = None,
    ) -> dict[str, Any]:
        """The response in this `status`."""
        request = self.request
        reasoning = request.reasoning
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": bool(request.background),
            "error": None if error is None else error_json(error),
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": self.model.name,
            "system_fingerprint": self.model.fingerprint,
            "output": list(output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": {"effort": None, "summary": None} if reasoning is None else reasoning.model_dump(),
            "service_tier": "default",
            "store": self.is_stored,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": (request.text and request.text.format) or {"type": "text"}},
            "tool_choice": told_choice(request.tool_choice),
            "tools": list(self.told),
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": "disabled",
            "usage": usage,
            "user": request.user,
        }


def usage_json(usage: Usage, reasoning_tokens: int) -> dict[str, Any]:
    """Tokens as Responses count them. What the cache keeps of a prompt is kept unasked, and counted by nobody."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": min(reasoning_tokens, usage.completion_tokens)},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_json(record: ErrorRecord) -> dict[str, Any]:
    """An error after the response has begun; OpenAI's clients know few codes, and ours is said in the message."""
    code = "rate_limit_exceeded" if record.http_status == _TOO_MANY else "server_error"
    return {"code": code, "message": f"{record.message} ({record.code})"}
