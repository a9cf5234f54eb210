"""Answers in which the server runs tools: the model writes, its calls of the server's tools are run, and it goes on.

`begin_answer` gives any dialect of the API what it needs: an `Answer` for `stream_reply` and `Gateway.release`, and the
one iterator of its parts. Without tools of the server's these are a plain generation and its `turn_events`. With them
the iterator also has ToolCalled, ToolReturned and, right before the only Finished, ToolsSpent (tool_steps.py). Its
TurnParts have the client's calls alone, numbered from 0. A dialect does this:

    calls = await gateway.tools.calls_of(body, context.tenant)      # body: a ChatRequest; None without such tools
    body = calls.body if calls else body
    plan = await asyncio.to_thread(plan_chat, body, ...)            # errors are plain HTTP errors up to here
    answer, parts = begin_answer(gateway, context, body, plan, model, calls)

and writes the parts: a text that follows a ToolReturned is a new message, where the dialect has several (with_gaps is
for those that have not). Tools of the dialect's body become `{"type": "tunechat", "name": ...}` in `body.tools`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from ...tools.budgets import Spending
from ...tools.errors import ToolFailed
from ...tools.records import Status, ToolCall, ToolResult
from ..contract.errors import ContextLengthExceeded
from .channel import Channel
from .context import RequestContext
from .errors import GenerationTimeout
from .events import Event, Finished, Usage
from .gateway import Answer, Gateway
from .generation import Generation
from .planning import ChatPlan, plan_chat
from .schemas.chat import ChatRequest
from .served import ServedModel
from .server_tools import ServerCalls
from .tool_steps import AnswerPart, ToolCalled, ToolReturned, ToolsSpent
from .tool_turns import ClientParts, history, later_choice
from .turn_events import MadeCall, Turn, turn_events

log = logging.getLogger(__name__)

_UNREAD_PARTS = 256


def begin_answer(
    gateway: Gateway,
    context: RequestContext,
    body: ChatRequest,
    plan: ChatPlan,
    model: ServedModel,
    calls: ServerCalls | None,
) -> tuple[Answer, AsyncIterator[AnswerPart]]:
    """A started answer and its parts. Whoever takes it owes it a `gateway.release`."""
    if calls is None:
        generation = gateway.begin(context, plan.sequences, body.cache_salt, model)
        gateway.track(generation, context)
        return generation, turn_events(generation.events(), plan.turn.make_parser)
    loop = ToolLoop(gateway, context, calls, plan, model)
    gateway.track(loop, context)
    return loop, loop.parts()


class ToolLoop:
    """One answer of several turns. It ends with a turn that calls no tool of the server's, or one of the client's.

    Calls that the client runs end it too, after the server's of the same turn. When the budget is spent, the server's
    tools are withdrawn and the model is asked once more. `max_tokens` bounds all turns together. Closing stops what
    runs, tools and their processes included.
    """

    def __init__(
        self, gateway: Gateway, context: RequestContext, calls: ServerCalls, plan: ChatPlan, model: ServedModel
    ) -> None:
        self.started = False
        self.usage = Usage()
        self.time_to_first_token: float | None = None
        self._gateway = gateway
        self._context = context
        self._calls = calls
        self._model = model
        self._messages = list(calls.body.messages)
        self._spending = Spending(calls.box.budget)
        self._limit: str | None = None
        self._has_failed = False
        self._steps = 0
        self._turns = 0
        self._round = 0
        self._begun = asyncio.Event()
        self._channel: Channel[AnswerPart] = Channel(_UNREAD_PARTS)
        timeout = gateway.settings.request_timeout
        late = GenerationTimeout(f"The answer took longer than {timeout:g} seconds.")
        self._timer = asyncio.get_running_loop().call_later(timeout, self.fail, late)
        self._task = asyncio.create_task(self._run(plan))

    async def wait_first(self, limit: float) -> None:
        """Returns when the model has begun or after `limit` seconds. Raises what the request was refused for."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), limit)
        if self._has_failed or self._task.done():
            await self._channel.wait()

    async def parts(self) -> AsyncIterator[AnswerPart]:
        """All parts, in the order in which they came about."""
        while (part := await self._channel.get()) is not None:
            yield part

    def fail(self, error: Exception) -> None:
        """Ends the answer with `error`, now."""
        self._has_failed = True
        self._channel.fail(error)
        self._begun.set()

    async def aclose(self) -> None:
        """Stops what runs and waits until it has ended. Safe to call twice."""
        self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, plan: ChatPlan) -> None:
        try:
            reason = await self._answer(plan)
            spent, limit = self._spending, self._limit
            await self._channel.put(ToolsSpent(spent.rounds, spent.calls, spent.output_bytes, spent.seconds, limit))
            await self._channel.put(Finished(0, reason))
            self._channel.close()
        except Exception as error:
            self._channel.close(error)
        finally:
            self._begun.set()

    async def _answer(self, first: ChatPlan) -> str:
        """Every turn, to the end; the reason of the last one."""
        plan: ChatPlan | None = first
        while plan is not None:
            turn = await self._turn(plan)
            mine = [call for call in turn.calls if call.name in self._calls.names]
            if turn.reason != "tool_calls":
                await self._show_unrun(mine)
                return turn.reason or "stop"
            if not mine:
                return turn.reason
            results = await self._run_calls(mine)
            if len(mine) < len(turn.calls):
                return "tool_calls"
            self._messages += history(turn, results)
            plan = await self._next_plan()
        return "length"

    async def _turn(self, plan: ChatPlan) -> Turn:
        body = self._calls.body
        generation = self._gateway.begin(self._context, plan.sequences, body.cache_salt, self._model, turn=self._turns)
        self._round, self._turns = self._turns, self._turns + 1
        turn, client = Turn(), ClientParts(self._calls.names)
        try:
            async for part in turn_events(self._noticed(generation), plan.turn.make_parser):
                if isinstance(part, Finished):
                    turn.reason = part.reason
                    continue
                turn.add(part)
                shown = client.of(part)
                if shown is not None:
                    await self._channel.put(shown)
        finally:
            if self.time_to_first_token is None:
                self.time_to_first_token = generation.time_to_first_token
            await generation.aclose()
            self.usage.add(generation.usage)
        return turn

    async def _noticed(self, generation: Generation) -> AsyncIterator[Event]:
        async for event in generation.events():
            self.started = True
            self._begun.set()
            yield event

    async def _show(self, call: MadeCall) -> int:
        """Tells of a call; the number of its step."""
        step = self._steps
        self._steps += 1
        await self._channel.put(ToolCalled(step, self._round, call.id, call.name, call.arguments))
        return step

    async def _show_unrun(self, made: Sequence[MadeCall]) -> None:
        """Tells of the calls of a turn that a limit or a stop string cut off."""
        for call in made:
            step = await self._show(call)
            result = ToolResult(call.id, call.name, Status.ERROR, "not run: the turn was cut off before its end")
            await self._channel.put(ToolReturned(step, result))

    async def _run_calls(self, made: Sequence[MadeCall]) -> list[ToolResult]:
        """Runs the calls of one turn together, and tells of each when it begins and when it has ended."""
        self._spending.begin_round()
        steps = {call.id: await self._show(call) for call in made}

        async def told(result: ToolResult) -> None:
            self._gateway.metrics.tool_called(result.name, str(result.status))
            log.info(
                "tool call",
                extra={
                    "request_id": self._context.id,
                    "call_id": result.id,
                    "tool": result.name,
                    "status": str(result.status),
                    "seconds": round(result.seconds, 4),
                },
            )
            await self._channel.put(ToolReturned(steps[result.id], result))

        calls: list[ToolCall] = []
        results: dict[str, ToolResult] = {}
        for call in made:
            try:
                calls.append(ToolCall.of_json(call.id, call.name, call.arguments))
            except ToolFailed as error:
                results[call.id] = ToolResult(call.id, call.name, Status.ERROR, error.message)
                await told(results[call.id])
        ran = await self._calls.box.run_all(
            calls, spending=self._spending, offered=self._calls.names, policy=self._calls.policy, told=told
        )
        results |= {result.id: result for result in ran}
        return [results[call.id] for call in made]

    async def _next_plan(self) -> ChatPlan | None:
        """The next turn; None where no token is left for it."""
        body = self._calls.body
        left = None if body.token_limit is None else body.token_limit - self.usage.completion_tokens
        if left is not None and left < 1:
            self._limit = "max_tokens"
            return None
        self._limit = self._spending.limit
        update = {
            "messages": self._messages,
            "tool_choice": later_choice(body, self._calls.names if self._limit else frozenset()),
            "max_tokens": left,
            "max_completion_tokens": None,
            "continue_final_message": None,
            "add_generation_prompt": None,
        }
        try:
            return await self._plan(body.model_copy(update=update))
        except ContextLengthExceeded:
            # The client's limit was for an answer to its own messages; after results there may be room for less.
            self._limit = "context"
        try:
            return await self._plan(body.model_copy(update=update | {"max_tokens": None}))
        except ContextLengthExceeded:
            return None

    async def _plan(self, body: ChatRequest) -> ChatPlan:
        gateway = self._gateway
        return await asyncio.to_thread(
            plan_chat, body, gateway.text, gateway.dialect, gateway.settings, gateway.context_length
        )
