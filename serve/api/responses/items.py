"""Items in their one normal form: as they are stored, listed, and read as messages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ...contract.errors import InvalidRequest, Unsupported
from ..schemas.responses import (
    CallItem,
    CallOutputItem,
    Item,
    ItemReference,
    MessageItem,
    Part,
    ReasoningItem,
    ServerCallItem,
)

NormalItem = dict[str, Any]

# What replies call this server where a client asks who ran a tool.
SERVER = "tunechat"
_ID_BYTES = 16
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def new_id(prefix: str) -> str:
    """An id that nobody can guess: on a server without keys, it is all that parts users."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def normal_items(given: str | Sequence[Item] | None, stored: Mapping[str, NormalItem]) -> list[NormalItem]:
    """A request's `input`, each item with an id of its own; a reference becomes the item of `stored` that it names.

    Ids that clients send are not kept: they may be those of other items. Raises InvalidRequest for a reference to
    nothing and Unsupported for content that is no text, with the path of the field.
    """
    if isinstance(given, str):
        given = [MessageItem(role="user", content=given)]
    return [_normal(item, stored, f"input[{index}]") for index, item in enumerate(given or ())]


def references(given: str | Sequence[Item] | None) -> list[str]:
    """The ids of stored items that a request's `input` names."""
    if given is None or isinstance(given, str):
        return []
    return [item.id for item in given if isinstance(item, ItemReference)]


def text_of(parts: Sequence[Mapping[str, Any]]) -> str:
    """The text of normal parts, a line each; what a refusal says is text too."""
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in parts)


def _normal(item: Item, stored: Mapping[str, NormalItem], path: str) -> NormalItem:
    match item:
        case MessageItem():
            return message_item(item.role, _parts(item.content, item.role == "assistant", f"{path}.content"))
        case CallItem():
            space = {} if item.namespace is None else {"namespace": item.namespace}
            return call_item(item.call_id, item.name, item.arguments, **space)
        case CallOutputItem():
            output = item.output if isinstance(item.output, str) else _parts(item.output, False, f"{path}.output")
            return {
                "id": new_id("fco"),
                "type": "function_call_output",
                "status": "completed",
                "call_id": item.call_id,
                "output": output,
            }
        case ServerCallItem():
            return _server_call(item, path)
        case ReasoningItem():
            return reasoning_item(
                _texts(item.content, f"{path}.content"), summary=_texts(item.summary, f"{path}.summary")
            )
        case ItemReference():
            if item.id not in stored:
                raise InvalidRequest(
                    "There is no stored item of this id; items of responses that are not stored must be sent in full.",
                    param=f"{path}.id",
                    code="item_not_found",
                )
            return stored[item.id]


def message_item(role: str, parts: list[dict[str, Any]], status: str = "completed") -> NormalItem:
    return {"id": new_id("msg"), "type": "message", "status": status, "role": role, "content": parts}


def call_item(call_id: str, name: str, arguments: str, status: str = "completed", **more: str) -> NormalItem:
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        **more,
    }


def server_call_item(name: str, arguments: str, status: str = "completed") -> NormalItem:
    """A call that this server runs, in the form in which OpenAI's clients know such calls."""
    return {
        "id": new_id("mcp"),
        "type": "mcp_call",
        "status": status,
        "server_label": SERVER,
        "name": name,
        "arguments": arguments,
        "output": None,
        "error": None,
    }


def call_error(text: str) -> dict[str, Any]:
    """Why a call that the server ran has no output."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def result_of(item: NormalItem) -> str:
    """What the model is told of a call that the server ran."""
    if item["output"] is not None:
        return str(item["output"])
    return text_of(item["error"]["content"]) if item["error"] is not None else ""


def reasoning_item(texts: Sequence[str], *, summary: Sequence[str] = (), status: str = "completed") -> NormalItem:
    """What was thought is in `content`, in full; models served here summarise and encrypt nothing."""
    return {
        "id": new_id("rs"),
        "type": "reasoning",
        "status": status,
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in texts],
        "encrypted_content": None,
    }


def output_text(text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    """A part of the assistant's own text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def _server_call(item: ServerCallItem, path: str) -> NormalItem:
    if item.server_label != SERVER:
        raise Unsupported("Only calls that this server ran are understood.", param=f"{path}.server_label")
    normal = server_call_item(item.name, item.arguments)
    normal["output"] = item.output
    if item.output is None and item.error is not None:
        normal["error"] = call_error(item.error if isinstance(item.error, str) else _error_text(item.error))
    return normal


def _error_text(error: Mapping[str, Any]) -> str:
    content = error.get("content")
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) or "The call failed."


def _parts(content: str | Sequence[Part], is_own: bool, path: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [output_text(content) if is_own else {"type": "input_text", "text": content}]
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(content):
        if part.type == "refusal" and is_own:
            parts.append({"type": "refusal", "refusal": part.refusal or ""})
            continue
        text = _text(part, f"{path}[{index}]")
        parts.append(output_text(text) if is_own else {"type": "input_text", "text": text})
    return parts


def _texts(parts: Sequence[Part] | None, path: str) -> list[str]:
    return [_text(part, f"{path}[{index}]") for index, part in enumerate(parts or ())]


def _text(part: Part, path: str) -> str:
    if part.type not in _TEXTS:
        raise Unsupported(
            "Only text parts are supported by this server.", param=f"{path}.type", code="unsupported_content"
        )
    if part.text is None:
        raise InvalidRequest("A text part needs text.", param=f"{path}.text")
    return part.text
