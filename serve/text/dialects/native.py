"""Families whose template writes tools, calls and results itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .family import Message, Messages, Traits
from .generic import Generic
from .history import with_argument_objects
from .tool import Tool, ToolChoice

_TOOLS = re.compile(r"\btools\b")


class Native(Generic):
    """Hands tools to the template where it takes them; else they are told in the system message."""

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        if not traits.native:
            return super().prepare(messages, tools, choice, traits)
        offered = tools if choice.mode != "none" else ()
        return self.adapt(with_argument_objects(messages)), [tool.definition() for tool in offered] or None

    def adapt(self, messages: Messages) -> Messages:
        """The messages with what this family's templates insist on."""
        return messages


def takes_tools(template: str) -> bool:
    """Whether the template has a variable of that name."""
    return _TOOLS.search(template) is not None
