"""How families of models write tool calls: rendered, constrained and read back by one object."""

from __future__ import annotations

from .choice import NAMES, Described, choose_dialect
from .dialect import Dialect
from .events import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta, TurnEvent
from .parser import TurnParser
from .reasoning import Thinking
from .tool import Call, Tool, ToolChoice, read_tools

__all__ = [
    "NAMES",
    "Call",
    "CallArguments",
    "CallEnd",
    "CallStart",
    "Described",
    "Dialect",
    "ReasoningDelta",
    "TextDelta",
    "Thinking",
    "Tool",
    "ToolChoice",
    "TurnEvent",
    "TurnParser",
    "choose_dialect",
    "read_tools",
]
