"""What a family of models has of its own: how it is known, how it writes calls, what its template is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from .form import Form
from .tool import Tool, ToolChoice

Message = Mapping[str, Any]
Messages = list[dict[str, Any]]


class Family(Protocol):
    """One family. `name` is what users choose it by."""

    name: ClassVar[str]

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        """Whether a model with this chat template and these special tokens belongs to it."""
        ...

    def form(self, special: Mapping[str, int]) -> Form:
        """How calls stand in its text."""
        ...

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        """Messages and tools as the template takes them."""
        ...


class Traits(Protocol):
    """What a family may ask of the model it is used with."""

    @property
    def form(self) -> Form: ...

    @property
    def native(self) -> bool:
        """Whether the template itself writes tools, calls and results."""
        ...

    @property
    def system_role(self) -> bool:
        """Whether the template takes a system message."""
        ...
