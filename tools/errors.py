"""The errors of tools. A model reads their messages, so they say how to mend the call."""

from __future__ import annotations

from ..serve.contract.errors import TunechatError


class ToolFailed(TunechatError):
    """A call that did not work out: wrong arguments, a limit, or what the tool itself ran into."""

    code = "tool_failed"
    http_status = 422


class BudgetSpent(ToolFailed):
    """A limit on rounds, calls, seconds or bytes was reached; nothing more is run."""

    code = "tool_budget_spent"
