"""Keeps web pages out of a server that needs no key: DNS rebinding and cross-site requests (CVE-2024-28224)."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ..contract.errors import Forbidden, InvalidRequest
from .errors import error_response
from .settings import ApiSettings, is_loopback

_SAFE_METHODS = frozenset({"GET", "HEAD"})


class HostMiddleware:
    """Refuses host names that are not this server's, and writes that another site's page sends.

    With keys and no list of hosts any name is good: a page that does not know the key gets nothing. Without keys only
    this machine's own names and the listed ones are, except on a public address that was opened in so many words.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._allowed = frozenset(host.lower().strip("[]") for host in settings.allowed_hosts)
        self._check_host = bool(self._allowed) or (settings.is_open and not settings.is_public)
        self._check_origin = settings.is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if self._check_host and not self._is_ours(host):
            error = InvalidRequest("This server does not answer to this host name.", code="unknown_host")
            await error_response(error.record)(scope, receive, send)
            return
        if self._check_origin and scope["method"] not in _SAFE_METHODS and self._is_foreign(scope, host):
            denied = Forbidden("Requests from other sites are refused.", code="foreign_origin")
            await error_response(denied.record)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, authority: str) -> bool:
        name = host_name(authority)
        return name is not None and (is_loopback(name) or name in self._allowed)

    def _is_foreign(self, scope: Scope, host: str) -> bool:
        origins = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
        if not origins:
            return False
        scheme, separator, authority = origins[0].partition("://")
        if len(origins) > 1 or not separator or scheme not in {"http", "https"}:
            return True
        return authority != host and not self._is_ours(authority)


def host_name(authority: str) -> str | None:
    """The name in `name:port`, brackets off; None when it is no plain authority."""
    try:
        parts = urlsplit(f"//{authority}")
        port_is_fine = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    if parts.netloc != authority or parts.path or parts.query or parts.fragment or "@" in authority:
        return None
    return parts.hostname if port_is_fine else None
