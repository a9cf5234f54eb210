"""Who may come in. Deny by default: without a known key only the two probes answer.

Pure ASGI, and the path it judges is `scope["path"]`, the one that routing uses: a URL rebuilt from the Host header
would let that header choose the path (CVE-2026-48746).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from ..contract.errors import Forbidden, TunechatError, Unauthorized
from .context import context_of
from .errors import error_response
from .settings import ApiSettings

OPEN_PATHS = frozenset({"/livez", "/readyz"})

# Everything that reads adapters out or changes them begins with one of these.
ADMIN_PATHS = ("/v1/adapters", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")

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
        return _tenant(digest) if known else None


def tenant_of(key: str) -> str:
    """The tenant that `key` is, known or not."""
    return _tenant(hashlib.sha256(key.encode()).digest())


def _tenant(digest: bytes) -> str:
    return hashlib.sha256(b"tenant:" + digest).hexdigest()[:_TENANT_DIGITS]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what. `admins` are the keys that may change adapters; without any, all of `keys` may.

    `is_exposed` is set where other machines reach a server without keys: there nobody changes adapters.
    """

    keys: KeyRing
    admins: KeyRing
    is_exposed: bool = False

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        return cls(KeyRing(settings.api_keys), KeyRing(settings.admin_keys), settings.is_public and settings.is_open)

    def admit(self, path: str, key: bytes | None) -> tuple[str, bool]:
        """The tenant that `key` is, "" where none is asked for, and whether it sees what every key made: an admin's
        does, and everybody does on a server of one's own without keys. Raises Unauthorized or Forbidden."""
        if path in OPEN_PATHS:
            return "", False
        is_admin_path = path.startswith(ADMIN_PATHS)
        admin = self.admins.tenant(key) if key is not None else None
        tenant = self.keys.tenant(key) if key is not None else None
        known = tenant or admin
        if known is None and (self.keys or (is_admin_path and self.admins)):
            raise Unauthorized(
                "Unknown API key."
                if key is not None
                else "Send an API key: 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
            )
        if is_admin_path and admin is None and (self.admins or self.is_exposed):
            raise Forbidden(
                "This key may not change adapters; an admin key may."
                if self.admins
                else "Nobody may change adapters on a public server without keys."
            )
        is_own = not (self.keys or self.admins or self.is_exposed)
        return known or "", admin is not None or is_own


class AuthMiddleware:
    """Lets a request through when its path is open, its key is known, or no key is configured at all."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            context = context_of(scope)
            context.tenant, context.is_admin = self._access.admit(scope["path"], sent_key(scope))
        except TunechatError as error:
            await error_response(error.record)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def sent_key(scope: Scope) -> bytes | None:
    """The key that the request carries; None without exactly one well-formed Authorization or x-api-key header.

    Where there is an Authorization header it alone counts: clients of Anthropic's may send a key of theirs beside it.
    """
    bearers = [value for name, value in scope["headers"] if name == b"authorization"]
    values = bearers or [value for name, value in scope["headers"] if name == b"x-api-key"]
    if len(values) != 1:
        return None
    key = values[0]
    if bearers:
        scheme, _, key = key.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
    key = key.strip()
    return key if 0 < len(key) <= _MAX_KEY_BYTES else None
