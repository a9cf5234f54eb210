"""The one way on which tools are run: the call is checked, decided on, limited, run, cut to size and written down."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ..serve.contract.errors import TunechatError
from .audit import AUDIT_NAME, Audit
from .budgets import Budget, Spending
from .errors import BudgetSpent, ToolFailed
from .options import ToolOptions
from .permissions import Policy, answered
from .records import Decision, Permission, Status, ToolCall, ToolResult, ToolSpec
from .registry import Entry, Registry

Ask = Callable[[ToolCall, Decision], Awaitable[bool]]
Told = Callable[[ToolResult], Awaitable[None]]
MAX_TOGETHER = 8  # calls of one turn that run at once

_log = logging.getLogger(__name__)


class Toolbox:
    """Runs calls of the tools of `registry` as `policy` permits. Shared by any number of answers at once."""

    def __init__(
        self, registry: Registry, policy: Policy | None = None, audit: Audit | None = None, budget: Budget | None = None
    ) -> None:
        self.registry = registry
        self.policy = policy or Policy()
        self.budget = budget or Budget()
        self._audit = audit

    @classmethod
    def of(cls, options: ToolOptions) -> Toolbox:
        """The toolbox that the options describe, without MCP servers. Raises ConfigError."""
        from .loading import load_registry

        return cls(load_registry(options), options.policy, Audit(options.home / AUDIT_NAME), options.budget)

    def specs(self, names: Iterable[str] | None = None) -> list[ToolSpec]:
        """What is said of the tools `names`, or of all. Raises NotFound for a name that there is not."""
        if names is None:
            return [entry.spec for entry in self.registry]
        return [self.registry.get(name).spec for name in names]

    def checked(self, call: ToolCall) -> ToolCall:
        """The call with its arguments as the tool's schema reads them: defaults filled in, one form for each value.

        Raises NotFound for an unknown tool and ToolFailed that names the argument that is wrong.
        """
        return ToolCall(call.id, call.name, _arguments(self.registry.get(call.name), call))

    def decide(self, call: ToolCall, policy: Policy | None = None) -> Decision:
        """The permission of a call of `checked`. `policy` takes the place of the toolbox's own (that of an API key)."""
        default = self.registry.get(call.name).spec.permission
        return (self.policy if policy is None else policy).decide(call, default)

    def needs_asking(self, call: ToolCall, policy: Policy | None = None) -> bool:
        """Whether a person must be asked first. False for a call that is wrong: it will be told, not run."""
        try:
            return self.decide(self.checked(call), policy).permission is Permission.ASK
        except TunechatError:
            return False

    async def run(
        self,
        call: ToolCall,
        *,
        spending: Spending | None = None,
        offered: Collection[str] | None = None,
        policy: Policy | None = None,
        ask: Ask | None = None,
    ) -> ToolResult:
        """What comes of `call`; whatever goes wrong is a result too, and only cancellation is raised.

        `offered` are the names that the request listed: others are never run. `ask` is awaited where the policy says
        ASK; without it the answer is no. Cancelling stops the tool, its processes included.
        """
        spending = Spending(self.budget) if spending is None else spending
        began = time.monotonic()
        decision: Decision | None = None
        truncated = False
        try:
            if offered is not None and call.name not in offered:
                raise ToolFailed(f"the tool {call.name[:100]!r} was not offered in this request")
            call = self.checked(call)
            decision = self.decide(call, policy)
            if decision.permission is Permission.ASK:
                decision = answered(decision, None if ask is None else await ask(call, decision))
            if not decision.allowed:
                status, content = Status.REFUSED, decision.reason
            else:
                began = time.monotonic()
                room = spending.begin_call()
                try:
                    status, content = await self._invoke(call, room)
                finally:
                    spending.end_call()
                content, truncated = spending.take_output(content)
        except BudgetSpent as error:
            status, content = Status.BUDGET, error.message
        except TunechatError as error:
            status, content = Status.ERROR, error.message
        except asyncio.CancelledError:
            self._record(call, decision, Status.ERROR, time.monotonic() - began, 0)
            raise
        seconds = time.monotonic() - began
        try:
            self._record(call, decision, status, seconds, len(content.encode("utf-8", "replace")))
        except OSError as error:
            # What was done and cannot be written down is not given to the model as if nothing were wrong.
            _log.error("the log of tool calls cannot be written: %s", error)
            status, content = Status.ERROR, "the log of tool calls cannot be written; ask the operator"
        return ToolResult(call.id, call.name, status, content, seconds, truncated, decision)

    def note_refusal(self, call: ToolCall) -> None:
        """Writes down that a person refused `call` before it came to `run`."""
        self._record(call, Decision(Permission.ASK, False, by="user"), Status.REFUSED, 0.0, 0)

    async def run_all(
        self,
        calls: Sequence[ToolCall],
        *,
        spending: Spending | None = None,
        offered: Collection[str] | None = None,
        policy: Policy | None = None,
        ask: Ask | None = None,
        told: Told | None = None,
    ) -> list[ToolResult]:
        """The results of one turn's calls, in their order. They run together; cancelling stops all of them.

        `told` is awaited with each result as soon as there is one.
        """
        spending = Spending(self.budget) if spending is None else spending
        places = asyncio.Semaphore(MAX_TOGETHER)

        async def one(call: ToolCall) -> ToolResult:
            async with places:
                result = await self.run(call, spending=spending, offered=offered, policy=policy, ask=ask)
            if told is not None:
                await told(result)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in calls]
        return [task.result() for task in tasks]

    async def _invoke(self, call: ToolCall, seconds: float) -> tuple[Status, str]:
        from langsmith import tracing_context

        entry = self.registry.get(call.name)
        request = {"name": call.name, "args": dict(call.arguments), "id": call.id, "type": "tool_call"}
        try:
            # LangChain would send each call to LangSmith where the environment names an account there.
            with tracing_context(enabled=False):
                async with asyncio.timeout(seconds):
                    message = await entry.tool.ainvoke(request)
        except TimeoutError:
            return Status.TIMEOUT, f"the tool took longer than {seconds:.0f} seconds and was stopped"
        except ToolFailed as error:
            return Status.ERROR, error.message
        except Exception as error:  # a tool is anybody's code; the model is told that it failed, the log why
            _log.warning("the tool %s failed", call.name, exc_info=True)
            return Status.ERROR, f"the tool failed: {type(error).__name__}: {str(error)[:500]}"
        status = Status.ERROR if getattr(message, "status", "success") == "error" else Status.OK
        return status, text_of(getattr(message, "content", message))

    def _record(self, call: ToolCall, decision: Decision | None, status: Status, seconds: float, size: int) -> None:
        if self._audit is not None:
            self._audit.write(call, decision, status, seconds=seconds, size=size)


def text_of(content: Any) -> str:
    """A tool's answer as text. Blocks that are no text (images, files) are named, not shown."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        blocks = [block if isinstance(block, dict) else {"type": "text", "text": str(block)} for block in content]
        return "\n".join(
            str(block.get("text", "")) if block.get("type") == "text" else f"[{block.get('type', 'unknown')}]"
            for block in blocks
        )
    return json.dumps(content, ensure_ascii=False, default=str)


def _arguments(entry: Entry, call: ToolCall) -> dict[str, Any]:
    schema = entry.tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        try:
            return schema.model_validate(dict(call.arguments)).model_dump(mode="json")
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            raise ToolFailed("; ".join(_problem(problem) for problem in problems[:5]), param="arguments") from error
    return dict(call.arguments)


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "arguments"
    return f"{where}: {str(problem['msg']).removeprefix('Value error, ')}"
