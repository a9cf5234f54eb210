"""Plain records of a tool, a call, the decision on it and its result. Imports nothing heavy, so that anyone may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from .errors import ToolFailed

MAX_ARGUMENTS = 1 << 20  # bytes of JSON; a call of a model's context is far smaller


class Permission(StrEnum):
    """What may happen to a call: it runs, a person is asked first, or it never runs."""

    ALWAYS = "always"
    ASK = "ask"
    NEVER = "never"


class Status(StrEnum):
    """How a call ended. Only `OK` is the tool's own answer; the others are told to the model as an error."""

    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model and a user see it. `parameters` is a JSON Schema object; `origin` says where it comes from.

    `permission` is the tool's own default, which rules may change. `effects` tells that calls may change something or
    reach other machines.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    origin: str
    permission: Permission = Permission.ASK
    effects: bool = False

    def as_function(self) -> dict[str, Any]:
        """The definition as OpenAI's chat API takes it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that a model asks for."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_json(cls, id: str, name: str, text: str) -> ToolCall:
        """The call whose arguments are the JSON object `text`; blank text is no arguments.

        Raises ToolFailed for any other JSON, NaN and infinities included, and for text that is too long.
        """
        if len(text) > MAX_ARGUMENTS:
            raise ToolFailed(f"the arguments are longer than {MAX_ARGUMENTS} characters", param="arguments")
        try:
            value = json.loads(text, parse_constant=_refuse) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ToolFailed(f"the arguments are no JSON: {str(error)[:200]}", param="arguments") from error
        if not isinstance(value, dict):
            raise ToolFailed("the arguments are no JSON object", param="arguments")
        return cls(id, name, value)

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a call. `rule` is the text of the rule that matched, "" for the tool's default.

    `by` is "policy", "user" (asked, and answered), or "nobody" (there was no one to ask, which means no).
    """

    permission: Permission
    allowed: bool
    rule: str = ""
    by: str = "policy"

    @property
    def reason(self) -> str:
        """Why a call was refused, as it is told to the model."""
        if self.by == "user":
            return "the user refused this call; do not repeat it unless the user asks for it"
        if self.by == "nobody":
            return "this call needs the consent of a person, and none is here to give it"
        return "this call is not permitted here"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call. `content` is the text for the model; `seconds` is what the tool took."""

    id: str
    name: str
    status: Status
    content: str
    seconds: float = 0.0
    truncated: bool = False
    decision: Decision | None = None

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
