"""Chats made ready for a template: plain copies, with marks on what users wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..contract.errors import InvalidRequest
from .control_tokens import ControlTokens
from .markup import Markup, Own

MAX_DEPTH = 64
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython", "environment"})
_REASONING = ("reasoning_content", "thinking", "reasoning")
_SAID = frozenset({"content", *_REASONING})
# Words that templates compare with and that no message may choose freely.
_TYPES = frozenset(
    {"text", "function", "image", "image_url", "input_text", "output_text", "refusal"}
    | {"string", "number", "integer", "boolean", "object", "array", "null"}
)


def clean_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages without fields that are None, and with reasoning under the names that templates know.

    Both as transformers does it. Raises InvalidRequest for no messages and for an unknown role.
    """
    if not messages:
        raise InvalidRequest("There must be at least one message.", param="messages")
    cleaned = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or (role not in ROLES and not isinstance(role, Markup)):
            raise InvalidRequest(
                f"The role must be one of {', '.join(sorted(ROLES))}.", param=f"messages[{index}].role"
            )
        fields = {name: value for name, value in message.items() if value is not None}
        reasoning = next((fields[name] for name in _REASONING if name in fields), None)
        if reasoning is not None:
            fields = {"thinking": reasoning, **fields, "reasoning_content": reasoning}
        cleaned.append(fields)
    return cleaned


def flatten_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The message with content that is a list of text parts as one string, a line each; other content is left alone."""
    content = message.get("content")
    if not isinstance(content, list | tuple) or not all(_is_text(part) for part in content):
        return message
    return {**message, "content": "\n".join(part["text"] for part in content)}


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


@dataclass(frozen=True, slots=True)
class Marker:
    """Copies messages and tools with marks on the strings in them (see control_tokens).

    `middles`: the template puts control tokens together from pieces.
    """

    control: ControlTokens
    mark: str
    middles: bool

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the message with every string marked but its role.

        In what the assistant said, control tokens that are not special stay what they are: the model wrote them
        (`<think>`), they were decoded as text, and it must read what it wrote. They cannot make a turn.
        """
        own = self.control.visible if message["role"] == "assistant" else frozenset()
        return {name: self._message_field(name, value, own) for name, value in message.items()}

    def _message_field(self, name: str, value: Any, own: frozenset[str]) -> Any:
        if name == "role":
            return value
        return self.value(value, spare=own if name in _SAID else frozenset())

    def value(self, value: Any, *, spare: frozenset[str] = frozenset()) -> Any:
        """A plain copy of the JSON value with every string in it marked, names of fields included."""
        if isinstance(value, Markup):
            return "".join(
                piece if isinstance(piece, Own) else self.value(piece, spare=spare) for piece in value.pieces
            )
        if isinstance(value, str):
            return self.control.mark(str(value), self.mark, middles=self.middles, spare=spare)
        if isinstance(value, Mapping):
            return {self._name(name): self._field(name, item, spare) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, spare=spare) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise InvalidRequest("Messages and tools may hold JSON values only.", param="messages")

    def _name(self, name: str) -> str:
        return self.control.mark(name, self.mark)

    def _field(self, name: str, value: Any, spare: frozenset[str]) -> Any:
        if name == "type" and isinstance(value, str) and value in _TYPES:
            return value
        return self.value(value, spare=spare)


class Continuation:
    """Ends a rendered chat where its last message ends, so that the model goes on with it.

    As transformers' `continue_final_message`: a tag behind the message shows where it ends. White space that the
    template trims is trimmed before the end, too.
    """

    def __init__(self, messages: list[dict[str, Any]], tag: str) -> None:
        self._tag = tag
        message = messages[-1]
        content = message.get("content")
        if isinstance(content, str):
            self._text = content
            self.messages = [*messages[:-1], {**message, "content": f"{content}{tag} "}]
        else:
            parts = list(content or ())
            index = next((n for n in reversed(range(len(parts))) if "text" in parts[n]), None)
            if index is None:
                raise InvalidRequest(
                    "continue_final_message: the last message has no text to continue.", param="continue_final_message"
                )
            self._text = parts[index]["text"]
            parts[index] = {**parts[index], "text": f"{self._text}{tag} "}
            self.messages = [*messages[:-1], {**message, "content": parts}]

    def cut(self, rendered: str) -> str:
        """`rendered` up to the end of the message. Raises InvalidRequest where the template changed or dropped it."""
        end = rendered.rfind(self._tag)
        if end < 0 or self._text.strip() not in rendered:
            raise InvalidRequest(
                "continue_final_message: the chat template does not keep the last message as it is.",
                param="continue_final_message",
            )
        kept = rendered.startswith(f"{self._tag} ", end)
        return rendered[:end] if kept else rendered[:end].rstrip()


def strings(value: Any, *, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Every string in `value`, names of fields included. Raises InvalidRequest for one nested deeper than `depth`."""
    if depth < 0:
        raise InvalidRequest(f"Messages and tools may be nested {MAX_DEPTH} levels deep.", param="messages")
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from strings(name, depth=depth)
            yield from strings(item, depth=depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item, depth=depth - 1)
