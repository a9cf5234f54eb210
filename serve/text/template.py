"""A model's chat template: messages in, prompt text out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError, UndefinedError

from ..contract.errors import InvalidRequest, ModelError
from .budget import TemplateLimit, budgeted
from .control_tokens import ControlTokens
from .sandbox import ChatEnvironment, TemplateRefusal
from .sizes import check_size

MAX_SOURCE = 1 << 18
MAX_TOLD = 300
_MARK = re.compile("[\ufdd0-\ufdef]")
_KWARGS: dict[str, Callable[[Any], bool]] = {
    "enable_thinking": lambda value: isinstance(value, bool),
    "thinking": lambda value: isinstance(value, bool),
    "reasoning_effort": lambda value: value in ("none", "minimal", "low", "medium", "high", "xhigh"),
}


class ChatTemplate:
    """Renders chats as transformers' `apply_chat_template(..., tokenize=False)` does, within limits.

    `variables` are what every rendering sees (`bos_token` and the like). Raises ModelError for a source that is too
    long, does not compile, or leaves the sandbox.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        if len(source) > MAX_SOURCE:
            raise ModelError(f"The model's chat template is longer than {MAX_SOURCE} characters.")
        self._variables = dict(variables)
        environment = ChatEnvironment()
        try:
            self._template: Template = environment.from_string(source)
            tree = environment.parse(source)
        except (TemplateError, TemplateLimit, RecursionError) as error:
            raise ModelError(f"The model's chat template cannot be used: {error}") from error
        self._literals = _literals(tree)
        self.accepts_parts = self._probe()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text. Raises InvalidRequest where the template refuses the messages or spends its budget."""
        check_kwargs(template_kwargs or {})
        variables = {
            **self._variables,
            **(template_kwargs or {}),
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            with budgeted():
                return self._generate(variables)
        except TemplateRefusal as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {_told(error)}", param="messages"
            ) from error
        except TemplateLimit as error:
            raise InvalidRequest(f"Rendering these messages was stopped: {error}.", param="messages") from error
        except SecurityError as error:
            raise ModelError("The model's chat template tries to leave its sandbox.") from error
        except UndefinedError as error:
            raise InvalidRequest(
                f"The model's chat template misses a field of these messages: {_told(error)}.", param="messages"
            ) from error
        except Exception as error:
            # A template is somebody else's program: whatever it fails with, it cannot render these messages.
            raise InvalidRequest(
                "The model's chat template cannot render these messages. A field of theirs may be missing, or hold "
                "another type than the template expects.",
                param="messages",
            ) from error

    def builds(self, control: ControlTokens) -> bool:
        """Whether the template has text that is the first part of a control token, to be completed by other text."""
        return any(control.ends_with_part(literal) for literal in self._literals)

    def _probe(self) -> bool:
        """Whether content may be a list of text parts and renders as a string does.

        Raises ModelError where the template leaves the sandbox or does not end even for the simplest chat.
        """
        parts = [{"type": "text", "text": "Hello"}]
        try:
            as_text = self.render([{"role": "user", "content": "Hello"}])
            return as_text == self.render([{"role": "user", "content": parts}])
        except InvalidRequest as error:
            if isinstance(error.__cause__, TemplateLimit):
                raise ModelError(f"The model's chat template cannot be used: {error.__cause__}.") from error
            return False

    def _generate(self, variables: Mapping[str, Any]) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(variables):
            size += len(piece)
            check_size(size)
            pieces.append(piece)
        return "".join(pieces)


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidRequest, naming it, for the first entry that a request may not hand to the template."""
    for name, value in kwargs.items():
        check = _KWARGS.get(name)
        if check is None:
            known = ", ".join(sorted(_KWARGS))
            raise InvalidRequest(
                f"chat_template_kwargs: {name!r} is not allowed. These are: {known}.",
                param=f"chat_template_kwargs.{name}",
            )
        if not check(value):
            raise InvalidRequest(
                f"chat_template_kwargs: the value of {name!r} is not one it can have.",
                param=f"chat_template_kwargs.{name}",
            )


def _told(error: TemplateError) -> str:
    """What a template says of its failure, which may quote a message: cut short, and without marks on user text."""
    return _MARK.sub("", str(error))[:MAX_TOLD]


def _literals(tree: nodes.Template) -> set[str]:
    """All text that the template itself may write."""
    data = {node.data for node in tree.find_all(nodes.TemplateData)}
    return data | {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
