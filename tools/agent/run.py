"""An agent and its steps: the question goes in; text, calls, results and questions to a person come out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from ..budgets import Spending
from ..records import Decision, Permission, Status, ToolCall, ToolResult
from ..toolbox import Toolbox
from .review import PolicyMiddleware, call_of

Ask = Callable[[ToolCall], Awaitable[bool]]
_THREAD = "1"


@dataclass(frozen=True, slots=True)
class Spoke:
    """A piece of text. `reasoning` tells that it is the model's thinking, not its answer."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Called:
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Returned:
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: the answer, which weights gave it, tokens in all model calls, and what the tools spent."""

    text: str
    model: str = ""
    system_fingerprint: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)


Step = Spoke | Called | Returned | Finished


def build_agent(
    model: BaseChatModel,
    box: Toolbox,
    names: Sequence[str],
    *,
    spending: Spending,
    interactive: bool = False,
    must_call: bool = False,
    system_prompt: str | None = None,
) -> Any:
    """LangChain's agent with the tools `names` of `box`, under its policy. Raises NotFound for an unknown name.

    With `interactive`, a call that needs asking interrupts the run; resume it as LangChain's documentation of
    human-in-the-loop says, or let `run_agent` do it. With `must_call`, the model's first turn is the call of one tool.
    """
    tools = [box.registry.get(name).tool for name in names]
    middleware = PolicyMiddleware(box, names, spending, interactive=interactive, must_call=must_call)
    return create_agent(
        model, tools, system_prompt=system_prompt, middleware=[middleware], checkpointer=InMemorySaver()
    )


async def run_agent(
    model: BaseChatModel,
    box: Toolbox,
    names: Sequence[str],
    question: str,
    *,
    ask: Ask | None = None,
    must_call: bool = False,
    system_prompt: str | None = None,
) -> AsyncIterator[Step]:
    """The steps of one answer. `ask` is awaited where the policy says ASK; without it the answer is no.

    Raises what the model's server answers with, and BudgetSpent. Closing the iterator stops the tools that run.
    """
    spending = Spending(box.budget)
    agent = build_agent(
        model,
        box,
        names,
        spending=spending,
        interactive=ask is not None,
        must_call=must_call,
        system_prompt=system_prompt,
    )
    # Two nodes a round and some to begin and end with: a bound in case that a round is not counted.
    config = {"configurable": {"thread_id": _THREAD}, "recursion_limit": 8 * box.budget.rounds + 20}
    entry: Any = {"messages": [{"role": "user", "content": question}]}
    last = AIMessage(content="")
    usage: dict[str, int] = {}
    while entry is not None:
        waiting: list[Any] = []
        async for mode, content in agent.astream(entry, config, stream_mode=["messages", "updates"]):
            if mode == "messages":
                for spoken in _spoken(content[0]):
                    yield spoken
                continue
            for message in _messages(content):
                if isinstance(message, AIMessage):
                    last = message
                    _add(usage, message)
                    for call in message.tool_calls:
                        yield Called(call_of(call))
                elif isinstance(message, ToolMessage):
                    yield Returned(_result(message))
            waiting += content.get("__interrupt__") or ()
        entry = Command(resume=await _answers(waiting, ask)) if waiting else None
    told = last.response_metadata
    yield Finished(
        last.text, str(told.get("model_name", "")), str(told.get("system_fingerprint", "")), usage, spending.as_json()
    )


async def _answers(waiting: Sequence[Any], ask: Ask | None) -> dict[str, dict[str, str]]:
    answers: dict[str, dict[str, str]] = {}
    for interrupt in waiting:
        call = ToolCall(interrupt.value["tool_call_id"], interrupt.value["name"], interrupt.value["args"])
        allowed = ask is not None and await ask(call)
        refusal = {"type": "reject", "message": Decision(Permission.ASK, False, by="user").reason}
        answers[interrupt.id] = {"type": "approve"} if allowed else refusal
    return answers


def _spoken(message: Any) -> list[Spoke]:
    if not isinstance(message, AIMessageChunk):
        return []
    reasoning = message.additional_kwargs.get("reasoning_content")
    pieces = [Spoke(str(reasoning), reasoning=True)] if reasoning else []
    return [*pieces, Spoke(message.text)] if message.text else pieces


def _messages(update: dict[str, Any]) -> list[Any]:
    return [message for node in update.values() if isinstance(node, dict) for message in node.get("messages") or ()]


def _result(message: ToolMessage) -> ToolResult:
    told = message.artifact if isinstance(message.artifact, dict) else {}
    fallback = Status.OK if message.status == "success" else Status.REFUSED
    return ToolResult(
        message.tool_call_id,
        message.name or "",
        Status(told.get("status", fallback)),
        message.text,
        float(told.get("seconds", 0.0)),
        bool(told.get("truncated", False)),
    )


def _add(usage: dict[str, int], message: AIMessage) -> None:
    told = message.usage_metadata
    if told is not None:
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            counted = told.get(name)
            usage[name] = usage.get(name, 0) + (counted if isinstance(counted, int) else 0)
