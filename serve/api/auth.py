"""Who may come in. Deny by default: without a known key only the two probes answer.

Pure ASGI, and the path it judges is `scope["path"]`, the one that routing uses: a URL rebuilt from the Host header
would let that header choose the path (CVE-2026-48746).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from ..contract.errors import Unauthorized
from .context import context_of
from .errors import error_response

OPEN_PATHS = frozenset({"/livez", "/readyz"})

_TENANT_DIGITS = 32
_MAX_KEY_BYTES = 1024


class KeyRing:
    """The keys that open the server, as SHA-256 digests: the keys themselves are not kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def tenant(self, key: bytes) -> str | None:
        """A stable, opaque name of the key's owner, or None for an unknown key.

        Compares with every key in constant time, so the time taken says nothing about any.
        """
        digest = hashlib.sha256(key).digest()
        known = False
        for stored in self._digests:
            known |= hmac.compare_digest(stored, digest)
        return hashlib.sha256(b"tenant:" + digest).hexdigest()[:_TENANT_DIGITS] if known else None


class AuthMiddleware:
    """Lets a request through when its path is open, its key is known, or no key is configured at all."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if self._keys and scope["path"] not in OPEN_PATHS:
            key = bearer_key(scope)
            tenant = self._keys.tenant(key) if key is not None else None
            if tenant is None:
                message = "Unknown API key." if key is not None else "Send an API key: 'Authorization: Bearer KEY'."
                await error_response(Unauthorized(message).record)(scope, receive, send)
                return
            context_of(scope).tenant = tenant
        await self._app(scope, receive, send)


def bearer_key(scope: Scope) -> bytes | None:
    """The key that the request carries; None without exactly one well-formed Authorization header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, key = values[0].partition(b" ")
    key = key.strip()
    return key if scheme.lower() == b"bearer" and 0 < len(key) <= _MAX_KEY_BYTES else None
