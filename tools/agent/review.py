"""The policy and the toolbox as LangChain middleware: every tool call of an agent passes here, and none around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from langchain.agents.middleware import HumanInTheLoopMiddleware, InterruptOnConfig
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest

from ..budgets import Spending
from ..errors import BudgetSpent, ToolFailed
from ..records import Decision, Permission, ToolCall
from ..toolbox import Toolbox


class PolicyMiddleware(HumanInTheLoopMiddleware[Any, Any, Any]):
    """Asks where the policy says ASK (as an interrupt, one a call), and runs calls through the toolbox, never directly.

    Without `interactive` nobody is asked, which means no. `spending` is of one answer: make a new agent for each, or
    give each its own. When the rounds are used up, the model is asked once more, without tools. With `must_call`,
    its first turn is the call of one tool.
    """

    def __init__(
        self,
        box: Toolbox,
        offered: Collection[str],
        spending: Spending,
        *,
        interactive: bool,
        must_call: bool = False,
    ) -> None:
        asking = InterruptOnConfig(allowed_decisions=["approve", "reject"], when=self._when)
        super().__init__(interrupt_on=dict.fromkeys(offered, asking) if interactive else {}, interrupt_mode="per_call")
        self.box = box
        self.spending = spending
        self._offered = frozenset(offered)
        self._interactive = interactive
        self._must_call = must_call

    def _when(self, request: ToolCallRequest) -> bool:
        return self.box.needs_asking(call_of(request.tool_call))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Any:
        if self.spending.rounds >= self.spending.budget.rounds:
            response = await handler(request.override(tools=[], tool_choice=None))
            return _without_calls(response)
        if self._must_call and not self.spending.rounds:
            one = {**request.model_settings, "parallel_tool_calls": False}
            request = request.override(tool_choice="any", model_settings=one)
        response = await handler(request)
        _refuse_cut_calls(response)
        if any(isinstance(message, AIMessage) and message.tool_calls for message in response.result):
            self.spending.begin_round()
        return response

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        reached = False

        async def run(approved: ToolCallRequest) -> ToolMessage:
            nonlocal reached
            reached = True
            return await self._run(approved)

        answer = await super().awrap_tool_call(request, run)
        if not reached:
            self.box.note_refusal(call_of(request.tool_call))
        return answer

    def wrap_model_call(self, request: ModelRequest[Any], handler: Any) -> Any:
        raise ToolFailed("an agent with tools runs asynchronously: use `ainvoke` or `astream`")

    def wrap_tool_call(self, request: ToolCallRequest, handler: Any) -> Any:
        raise ToolFailed("an agent with tools runs asynchronously: use `ainvoke` or `astream`")

    async def _run(self, request: ToolCallRequest) -> ToolMessage:
        call = call_of(request.tool_call)
        result = await self.box.run(
            call, spending=self.spending, offered=self._offered, ask=_consented if self._interactive else None
        )
        return ToolMessage(
            content=result.content,
            name=result.name,
            tool_call_id=result.id,
            status="success" if result.ok else "error",
            artifact=result.as_json(),
        )


async def _consented(call: ToolCall, decision: Decision) -> bool:
    """Yes: a call that needs asking does not come this far without a person's approval."""
    return decision.permission is Permission.ASK


def call_of(call: Any) -> ToolCall:
    """LangChain's tool call as ours."""
    return ToolCall(call.get("id") or "", call["name"], dict(call.get("args") or {}))


def _refuse_cut_calls(response: ModelResponse[Any]) -> None:
    """Raises ToolFailed where the token limit cut a turn with calls: LangChain would run half a call as a whole one."""
    for message in response.result:
        if not isinstance(message, AIMessage) or message.response_metadata.get("finish_reason") != "length":
            continue
        if message.tool_calls or message.invalid_tool_calls:
            raise ToolFailed("the model's turn was cut off in a tool call; allow it more tokens")


def _without_calls(response: ModelResponse[Any]) -> ModelResponse[Any]:
    """The response as an answer: a model that calls tools that it was not offered is not followed."""
    for message in response.result:
        if isinstance(message, AIMessage) and message.tool_calls:
            if not message.text:
                raise BudgetSpent("the model calls tools without end and gives no answer")
            message.tool_calls = []
            message.additional_kwargs.pop("tool_calls", None)
    return response
