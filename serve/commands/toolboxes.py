"""The toolbox that the settings describe, opened with its MCP servers and closed again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import typer

from ...tools.budgets import Budget
from ...tools.options import ToolOptions
from ...tools.permissions import Policy
from ..settings import Settings

if TYPE_CHECKING:
    from ...tools.records import Decision, ToolCall
    from ...tools.toolbox import Ask, Toolbox

MCP_NAME = "mcp.json"


def options_of(settings: Settings) -> ToolOptions:
    """What the tools need of the settings. Raises ConfigError for a permission that is none."""
    mcp = settings.tool_mcp
    if mcp is None and (settings.home / MCP_NAME).is_file():
        mcp = settings.home / MCP_NAME
    return ToolOptions(
        home=settings.home,
        root=settings.tool_root,
        documents=settings.tool_documents,
        enabled=settings.tool_enable,
        policy=Policy.parse(settings.tool_permissions),
        files=settings.tool_files,
        mcp=mcp,
        search_key="" if settings.tool_search_key is None else settings.tool_search_key.get_secret_value(),
        budget=Budget(
            rounds=settings.tool_rounds,
            calls=settings.tool_calls,
            seconds=settings.tool_seconds,
            output_bytes=settings.tool_output_bytes,
        ),
    )


@asynccontextmanager
async def opened_toolbox(options: ToolOptions, needed: Collection[str] | None = None) -> AsyncIterator[Toolbox]:
    """The toolbox, while it is open. With `needed`, only MCP servers that could have one of these names are started."""
    from ...tools.toolbox import Toolbox

    yield Toolbox.of(options)


def asker() -> Ask | None:
    """Asks whoever sits at the terminal; None where nobody does, which means no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    async def ask(call: ToolCall, decision: Decision) -> bool:
        shown = json.dumps(dict(call.arguments), ensure_ascii=False)
        return await asyncio.to_thread(typer.confirm, f"Run {call.name}({shown})?", err=True)

    return ask
