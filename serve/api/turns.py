"""What the answer to a chat may be: which tools it may call, which grammar holds it, and how its text is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..contract.errors import InvalidRequest, Unsupported
from ..text.dialects import Dialect, Thinking, Tool, ToolChoice, TurnParser, read_tools
from .formats import read_format
from .schemas.chat import ChatRequest, Message
from .turn_events import MakeParser

AUTO = ToolChoice()
_MESSAGE = re.compile(r"^messages\[(\d+)\]")
_MODES: Mapping[Any, Literal["none", "auto", "required"]] = {"none": "none", "auto": "auto", "required": "required"}


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """`grammar` holds the answer ("": it may be anything), because of the request's `field`.

    `visible` are the special tokens that the parser must see. Without `make_parser`, all text is text.
    """

    grammar: str = ""
    field: str | None = None
    visible: frozenset[int] = frozenset()
    make_parser: MakeParser | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request, and which of them may be called."""

    all: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool

    @property
    def offered(self) -> tuple[Tool, ...]:
        return self.choice.of(self.all)


def request_tools(body: ChatRequest) -> Tools:
    """The tools of `body`. Raises InvalidRequest, and Unsupported for what does not go together with calls."""
    tools = Tools(read_tools(body.tools or ()), read_choice(body.tool_choice), body.parallel_tool_calls is not False)
    if tools.offered and body.alternatives is not None:
        raise Unsupported("'logprobs' beside 'tools' is not supported by this server.", param="logprobs")
    if tools.offered and body.echo:
        raise Unsupported("'echo' beside 'tools' is not supported by this server.", param="echo")
    return tools


def read_choice(value: Any) -> ToolChoice:
    """OpenAI's `tool_choice`: a mode, one function, or `allowed_tools`. Raises InvalidRequest for anything else."""
    if value is None:
        return AUTO
    if isinstance(value, str) and value in _MODES:
        return ToolChoice(_MODES[value])
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "function":
        return ToolChoice.named(_name(value, "tool_choice"))
    if kind == "allowed_tools":
        return _allowed(value.get("allowed_tools", value))
    raise InvalidRequest("It must be none, auto, required, a function or a list of allowed tools.", param="tool_choice")


def _allowed(value: Any) -> ToolChoice:
    path = "tool_choice.allowed_tools"
    mode, tools = (value.get("mode"), value.get("tools")) if isinstance(value, Mapping) else (None, None)
    if mode not in ("auto", "required"):
        raise InvalidRequest("The mode must be auto or required.", param=f"{path}.mode")
    if not isinstance(tools, list) or not tools:
        raise InvalidRequest("There must be a list of tools.", param=f"{path}.tools")
    names = frozenset(_name(tool, f"{path}.tools[{index}]") for index, tool in enumerate(tools))
    return ToolChoice(_MODES[mode], names)


def _name(value: Any, path: str) -> str:
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidRequest("A function must have a name.", param=f"{path}.function.name")
    return name


def for_template(
    messages: Sequence[Message], dialect: Dialect, tools: Sequence[Tool] = (), choice: ToolChoice = AUTO
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools as the model's template takes them. Raises InvalidRequest for calls that are none."""
    plain: list[dict[str, Any]] = []
    places: list[int] = []
    for place, message in enumerate(messages):
        told = [*message.earlier, message.for_template()]
        plain += told
        places += [place] * len(told)
    if not tools and not any(message.is_of_tools for message in messages):
        return plain, None
    try:
        return dialect.prepare(plain, tools, choice)
    except InvalidRequest as error:
        if error.param:
            error.param = _MESSAGE.sub(lambda found: f"messages[{places[int(found[1])]}]", error.param)
        raise


def plan_turn(body: ChatRequest, dialect: Dialect, tools: Tools, prompt_end: str) -> TurnPlan:
    """How the answer is held and read. `prompt_end` is the end of the prompt's text.

    Raises InvalidRequest for tools and formats that no grammar can hold.
    """
    offered, wanted = tools.offered, read_format(body)
    thinking = _thinking(body, dialect, prompt_end)
    grammar = dialect.grammar(
        tools.all,
        tools.choice,
        parallel=tools.parallel,
        content=wanted.structure if wanted else None,
        thinking=thinking,
    )
    field = "tools" if offered or not wanted else wanted.field
    if not offered and thinking == "no":
        return TurnPlan(grammar, field)

    def make_parser() -> TurnParser:
        return dialect.parser(tools.all, tools.choice, vouched=bool(grammar), thinking=thinking)

    visible = dialect.visible_special_tokens if offered else _reasoning_tokens(dialect)
    return TurnPlan(grammar, field, visible, make_parser)


def _thinking(body: ChatRequest, dialect: Dialect, prompt_end: str) -> Thinking:
    """A text that goes on from the request's own words does not begin a block of reasoning."""
    thinking = dialect.thinking(prompt_end)
    if body.echo or (body.continue_final_message and thinking != "open"):
        return "no"
    return thinking


def _reasoning_tokens(dialect: Dialect) -> frozenset[int]:
    """Those of the dialect's special tokens that are markers of reasoning; those of calls stay hidden."""
    if dialect.reasoning is None:
        return frozenset()
    marks = (dialect.reasoning.opener, dialect.reasoning.closer)
    return frozenset(id_ for token, id_ in dialect.special.items() if any(token in mark for mark in marks))
