"""Tools of a request as chat knows them, and where each came from.

Responses write a function flat, and may put several into a namespace, which calls then name. Models know no namespaces,
so a function in one is shown to them under a name made of both. Tools that this server runs are named as in chat, and
told of in replies as OpenAI's tell of a remote server's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...contract.errors import InvalidRequest, Unsupported
from ..server_tools import KIND
from .items import SERVER

_LONGEST_NAME = 64
_DIGITS = 8
_CHOSEN = ("function", KIND)
_FIELDS = ("name", "description", "parameters", "strict")
# What Codex puts beside its functions without being asked; only OpenAI's own servers can run it.
_HOSTED = frozenset({"web_search", "image_generation", "tool_search"})


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools that the model is told of: `chat` as chat writes them, `told` as Responses do.

    `paths` are their places in the request, in the order of `chat`. `spaces` maps names that the model knows to
    namespace and name.
    """

    chat: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    spaces: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_offer(tools: Sequence[Mapping[str, Any]] | None, *, is_codex: bool = False) -> Offer:
    """The functions among a request's `tools`, in namespaces too. Raises Unsupported for tools of any other type.

    Left out, because their client does without them, are a web search that may not reach the web
    (`external_web_access` is false), and with `is_codex` what Codex sends to whatever server it talks to.
    """
    offer = Offer()
    for index, tool in enumerate(tools or ()):
        path = f"tools[{index}]"
        kind = tool.get("type")
        if kind == "function":
            offer.told.append(_add(offer, tool, path))
        elif kind == KIND:
            offer.chat.append(dict(tool))
            offer.paths.append(path)
            offer.told.append(_server(tool.get("name")))
        elif kind == "namespace":
            offer.told.append(_add_namespace(offer, tool, path))
        elif not (kind == "web_search" and tool.get("external_web_access") is False) and not (
            is_codex and kind in _HOSTED
        ):
            raise _unsupported(kind, path)
    return offer


def flat_name(namespace: str | None, name: str) -> str:
    """The name that the model knows a function by."""
    if not namespace:
        return name
    flat = f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"
    if len(flat) <= _LONGEST_NAME:
        return flat
    digest = hashlib.sha256(flat.encode()).hexdigest()[:_DIGITS]
    return f"{flat[: _LONGEST_NAME - _DIGITS - 1]}_{digest}"


def chat_choice(value: Any) -> Any:
    """A request's `tool_choice` as chat writes it. Raises Unsupported for tools that are no functions.

    What is no choice at all is left as it is, for chat to refuse.
    """
    if not isinstance(value, Mapping):
        return value
    kind = value.get("type")
    if kind in _CHOSEN:
        return _chosen(value)
    if kind != "allowed_tools":
        raise Unsupported("Only functions and tools of this server can be chosen here.", param="tool_choice.type")
    tools = value.get("tools")
    if isinstance(tools, list):
        for index, tool in enumerate(tools):
            if not isinstance(tool, Mapping) or tool.get("type") not in _CHOSEN:
                raise Unsupported(
                    "Only functions and tools of this server can be chosen here.",
                    param=f"tool_choice.tools[{index}].type",
                )
        tools = [_chosen(tool) for tool in tools]
    return {"type": "allowed_tools", "allowed_tools": {"mode": value.get("mode"), "tools": tools}}


def told_choice(value: Any) -> Any:
    """A request's `tool_choice` as replies tell of it."""
    if value is None:
        return "auto"
    if isinstance(value, Mapping) and value.get("type") == KIND:
        return {"type": "mcp", "server_label": SERVER, "name": value.get("name")}
    return value


def _server(name: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": SERVER, "allowed_tools": [name], "require_approval": "never"}


def _chosen(value: Mapping[str, Any]) -> dict[str, Any]:
    if value["type"] == KIND:
        return dict(value)
    name, namespace = value.get("name"), value.get("namespace")
    if isinstance(name, str) and isinstance(namespace, str):
        name = flat_name(namespace, name)
    return {"type": "function", "function": {"name": name}}


def _add(offer: Offer, tool: Mapping[str, Any], path: str, namespace: str | None = None) -> dict[str, Any]:
    if "name" not in tool and "function" in tool:
        raise InvalidRequest(
            'Responses write a function flat: {"type": "function", "name": ..., "parameters": ...}.',
            param=f"{path}.name",
        )
    function = {name: tool[name] for name in _FIELDS if name in tool}
    told = {"type": "function", "description": None, "parameters": None, "strict": False, **function}
    if namespace is not None and isinstance(tool.get("name"), str):
        function["name"] = flat_name(namespace, tool["name"])
        offer.spaces[function["name"]] = (namespace, tool["name"])
    offer.chat.append({"type": "function", "function": function})
    offer.paths.append(path)
    return told | {"strict": bool(told["strict"])}


def _add_namespace(offer: Offer, space: Mapping[str, Any], path: str) -> dict[str, Any]:
    name, tools = space.get("name"), space.get("tools")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("A namespace must have a name.", param=f"{path}.name")
    if not isinstance(tools, list):
        raise InvalidRequest("A namespace must have a list of tools.", param=f"{path}.tools")
    told: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        inner = f"{path}.tools[{index}]"
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind != "function":
            raise _unsupported(kind, inner)
        told.append(_add(offer, tool, inner, name))
    description = space.get("description")
    return {
        "type": "namespace",
        "name": name,
        "description": description if isinstance(description, str) else "",
        "tools": told,
    }


def _unsupported(kind: Any, path: str) -> Unsupported:
    named = f"Tools of type '{kind[:32]}'" if isinstance(kind, str) else "Tools without a type"
    return Unsupported(
        f"{named} are not supported by this server; functions, namespaces of functions and its own are.",
        param=f"{path}.type",
    )
