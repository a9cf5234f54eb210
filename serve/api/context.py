"""The outermost layer of every request: its id, its log line, its metrics, and the answer to what nobody expected."""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from sse_starlette.sse import SendTimeoutError
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import INTERNAL, error_response
from .events import Usage
from .metrics import Metrics

log = logging.getLogger(__name__)

# What nginx logs for a client that left; no such status is ever sent.
CLIENT_GONE = 499
# Asked every few seconds by machines; their answers are of interest when someone looks for them.
_POLLED = frozenset({"/livez", "/readyz", "/metrics"})
# The protocol layer puts a function under this extension that drops the connection without waiting for unsent bytes.
ABORT = "tunechat.abort"


@dataclass(slots=True)
class RequestContext:
    """What is known of one request, filled in on its way. `tenant` parts the caches of different keys, and owns what
    its key makes; what a request with `is_admin` makes is everybody's, and it sees what every key made.

    `adapters` are the ids of the versions that it uses; `closing` gives back at its end what was taken for it.
    """

    id: str = field(default_factory=lambda: "req_" + secrets.token_hex(12))
    tenant: str = ""
    is_admin: bool = False
    model: str | None = None
    usage: Usage | None = None
    time_to_first_token: float | None = None
    adapters: tuple[str, ...] = ()
    closing: ExitStack = field(default_factory=ExitStack)

    @property
    def owner(self) -> str:
        """Whose it is what this request makes: a tenant's, or "" for everybody's."""
        return "" if self.is_admin else self.tenant

    def sees(self, owner: str) -> bool:
        """Whether this request may see and use what is `owner`'s. What it may not see does not exist for it."""
        return self.is_admin or owner in ("", self.tenant)

    def owns(self, owner: str) -> bool:
        """Whether this request may end what is `owner`'s."""
        return self.is_admin or (owner == self.tenant != "")


def context_of(scope: Scope) -> RequestContext:
    """The request's context; a fresh one where the layer that makes it is absent."""
    context = scope.setdefault("state", {}).setdefault("context", None)
    if not isinstance(context, RequestContext):
        context = scope["state"]["context"] = RequestContext()
    return context


class RequestContextMiddleware:
    """Gives each request an id, logs it when it ends, and turns an unforeseen exception into a plain 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        began = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = context.id
            await send(message)

        problem: str | None = None
        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            problem = "client_gone"
        except SendTimeoutError:
            problem = "client_too_slow"
            _drop_connection(scope)
        except Exception:
            problem = "unexpected"
            log.exception("unexpected error", extra={"request_id": context.id})
            if status:
                _drop_connection(scope)
            else:
                await error_response(INTERNAL)(scope, receive, send_with_id)
        finally:
            seconds = time.monotonic() - began
            with context.closing:
                self._finish(scope, context, status or CLIENT_GONE, seconds, problem)

    def _finish(self, scope: Scope, context: RequestContext, status: int, seconds: float, problem: str | None) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.request_done(route, scope["method"], status, seconds)
        fields: dict[str, Any] = {
            "request_id": context.id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "problem": problem,
            "model": context.model,
        }
        if context.usage is not None:
            self._metrics.count_usage(context.usage)
            self._metrics.count_adapters(context.adapters, context.usage, context.time_to_first_token)
            fields |= {
                "prompt_tokens": context.usage.prompt_tokens,
                "completion_tokens": context.usage.completion_tokens,
                "cached_tokens": context.usage.cached_tokens,
                "first_token_seconds": context.time_to_first_token and round(context.time_to_first_token, 4),
            }
        level = logging.DEBUG if route in _POLLED else logging.INFO
        log.log(level, "request", extra={key: value for key, value in fields.items() if value is not None})


def _drop_connection(scope: Scope) -> None:
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort["drop"]()


def request_context(request: Request) -> RequestContext:
    """The context of a Starlette request."""
    return context_of(request.scope)
