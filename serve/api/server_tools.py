"""The tools that requests may have this server run: opened behind its start, offered by the policy of each API key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ...tools.permissions import Policy
from ...tools.records import Permission, ToolCall, ToolSpec
from ...tools.toolbox import Toolbox
from ..contract.errors import InvalidRequest, Unavailable
from .auth import tenant_of
from .schemas.chat import ChatRequest

OpenToolbox = Callable[[], AbstractAsyncContextManager[Toolbox]]
KIND = "tunechat"
_OPENING_SECONDS = 30.0
_SHOWN = 64  # characters of a name, and names of a list

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerCalls:
    """What of a request this server runs: calls of `names`, by `box`, as `policy` permits.

    `body` is the request with these tools as ordinary functions, which is how the model is told of them.
    """

    body: ChatRequest
    names: frozenset[str]
    box: Toolbox
    policy: Policy


class ServerTools:
    """The toolbox of one server, and who may have which of it.

    `globs` are the names that may be offered at all. `policies` are rules by API key, which take the place of the
    toolbox's own; rules of its own that say never hold for every key.
    """

    def __init__(
        self, open_toolbox: OpenToolbox | None, globs: Sequence[str], policies: Mapping[str, Sequence[str]]
    ) -> None:
        self._open = open_toolbox if globs else None
        self._globs = tuple(globs)
        self._policies = {tenant_of(key): Policy.parse(rules) for key, rules in policies.items()}
        self._box: Toolbox | None = None
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    def start(self, after: asyncio.Event) -> None:
        """Begins to open the toolbox, once `after` is set: nothing of the server's start waits for it."""
        if self._open is not None:
            self._holder = asyncio.create_task(self._hold(self._open, after))

    async def close(self) -> None:
        """Closes the toolbox, its MCP servers included."""
        self._closing.set()
        if self._holder is not None:
            if not self._opened.is_set():
                self._holder.cancel()
            await asyncio.gather(self._holder, return_exceptions=True)

    async def _hold(self, open_toolbox: OpenToolbox, after: asyncio.Event) -> None:
        """Opens and closes in one task, as what is opened may demand."""
        await after.wait()
        try:
            async with open_toolbox() as box:
                self._box = box
                self._opened.set()
                self._warn_of_unknown(box)
                await self._closing.wait()
        except Exception:  # the tools are anybody's code; the server serves without them, and the log has the reason
            log.exception("the server's tools cannot be opened")
        finally:
            self._box = None
            self._opened.set()

    def _warn_of_unknown(self, box: Toolbox) -> None:
        names = [spec.name for spec in box.specs()]
        for glob in self._globs:
            if not any(fnmatchcase(name, glob) for name in names):
                log.warning("server_tools names a tool that there is not", extra={"tool": glob})

    async def box(self) -> Toolbox:
        """The toolbox, once it is open. Raises InvalidRequest without tools, and Unavailable."""
        if self._open is None:
            raise InvalidRequest("This server runs no tools; its operator names those that it may in 'server_tools'.")
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                await self._opened.wait()
        except TimeoutError:
            raise Unavailable("The server's tools are being opened; try again.", code="tools_loading") from None
        if self._box is None:
            raise Unavailable("The server's tools cannot be opened; see its log.", code="tools_failed")
        return self._box

    async def specs(self, tenant: str) -> list[ToolSpec]:
        """What `tenant` may have run, with the permission that holds for it. Raises Unavailable."""
        if self._open is None:
            return []
        box = await self.box()
        policy = self._policy(tenant, box)
        return [
            replace(spec, permission=policy.decide(ToolCall("", spec.name), spec.permission).permission)
            for spec in box.specs()
            if any(fnmatchcase(spec.name, glob) for glob in self._globs)
            and not policy.excludes(spec.name, spec.permission)
        ]

    def _policy(self, tenant: str, box: Toolbox) -> Policy:
        own = self._policies.get(tenant)
        if own is None:
            return box.policy
        return own.with_rules(*(rule for rule in box.policy.rules if rule.permission is Permission.NEVER))

    async def calls_of(self, body: ChatRequest, tenant: str, *, param: str = "tools") -> ServerCalls | None:
        """What of `body` the server is to run; None where it names no tool of the server's.

        `param` is how the caller's dialect calls the field. Raises InvalidRequest that names the field and the mend,
        and Unavailable.
        """
        tools = body.tools or []
        places = [index for index, tool in enumerate(tools) if tool.get("type") == KIND]
        if not places:
            return None
        if body.choices != 1:
            raise InvalidRequest("With tools that the server runs, there is one choice: send 'n': 1.", param="n")
        try:
            box = await self.box()
        except InvalidRequest as error:
            error.param = f"{param}[{places[0]}].type"
            raise
        offered = {spec.name: spec for spec in await self.specs(tenant)}
        taken = {_function_name(tool) for tool in tools}
        told, names = list(tools), set[str]()
        for index in places:
            where = f"{param}[{index}].name"
            spec = _named(tools[index].get("name"), offered, where)
            if spec.name in taken or spec.name in names:
                raise InvalidRequest(f"Two tools are named {spec.name!r}; leave one out.", param=where)
            names.add(spec.name)
            told[index] = spec.as_function()
        body = body.model_copy(update={"tools": told, "tool_choice": _plain_choice(body.tool_choice)})
        return ServerCalls(body, frozenset(names), box, self._policy(tenant, box))


def _named(name: Any, offered: Mapping[str, ToolSpec], where: str) -> ToolSpec:
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"A tool of type {KIND!r} needs a name; GET /v1/tools lists them.", param=where)
    if name not in offered:
        known = ", ".join(list(offered)[:_SHOWN]) or "none"
        raise InvalidRequest(
            f"The server runs no tool {name[:_SHOWN]!r} for this key. It runs: {known}. Other tools are functions, "
            "which the client runs.",
            param=where,
        )
    return offered[name]


def _function_name(tool: Mapping[str, Any]) -> Any:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def _plain_choice(value: Any) -> Any:
    """`tool_choice` with every tool of the server's named as the function that the model sees."""
    if not isinstance(value, Mapping):
        return value
    if value.get("type") == KIND:
        return {"type": "function", "function": {"name": value.get("name")}}
    allowed = value.get("allowed_tools")
    if value.get("type") == "allowed_tools" and isinstance(allowed, Mapping) and isinstance(allowed.get("tools"), list):
        return {**value, "allowed_tools": {**allowed, "tools": [_plain_choice(tool) for tool in allowed["tools"]]}}
    return value
