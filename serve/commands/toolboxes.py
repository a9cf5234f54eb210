"""The toolbox that the settings describe, opened with its MCP servers and closed again."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import typer

from ...tools.budgets import Budget
from ...tools.options import ToolOptions
from ...tools.permissions import Policy
from ..contract.errors import ConfigError
from ..settings import Settings
from .agent_view import printable

if TYPE_CHECKING:
    from ...tools.mcp.servers import McpServers
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
async def opened_toolbox(
    options: ToolOptions, needed: Collection[str] | None = None, tell: Callable[[str], None] | None = None
) -> AsyncIterator[Toolbox]:
    """The toolbox, while it is open. With `needed`, only MCP servers that could have one of these names are started.

    What is wrong with an MCP server goes to `tell`, by default stderr; the other tools work. The event loop goes on
    meanwhile: importing what tools need takes a second.
    """
    from ...tools.toolbox import Toolbox

    box = await asyncio.to_thread(Toolbox.of, options)
    if options.mcp is None:
        yield box
        return
    async with mcp_servers(options) as servers:
        await servers.add_to(box.registry, needed)
        for problem in servers.problems:
            (_warn if tell is None else tell)(problem)
        yield box


def _warn(problem: str) -> None:
    typer.echo(f"warning: {problem}", err=True)


def needed_of(names: Sequence[str]) -> list[str] | None:
    """What MCP servers may be needed for: all where a glob could mean any of them, none where no name is given."""
    return None if any(mark in name for name in names for mark in "*?[") else list(names)


def mcp_servers(options: ToolOptions) -> McpServers:
    """The MCP servers of the options, not started yet. Raises ConfigError when there is no file of them."""
    from ...tools.mcp.config import read_servers
    from ...tools.mcp.pins import PINS_NAME, Pins
    from ...tools.mcp.servers import McpServers

    if options.mcp is None:
        raise ConfigError(f"there are no MCP servers; write them to {options.home / MCP_NAME}")
    return McpServers(read_servers(options.mcp), Pins(options.home / PINS_NAME))


def asker() -> Ask | None:
    """Asks whoever sits at the terminal; None where nobody does, which means no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    async def ask(call: ToolCall, decision: Decision) -> bool:
        shown = printable(json.dumps(dict(call.arguments), ensure_ascii=False))
        return await _confirmed(f"Run {call.name}({shown})?")

    return ask


async def _confirmed(question: str) -> bool:
    """The answer, while the loop goes on. The thread that reads it is one that nobody waits for at Ctrl-C."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def tell(value: bool) -> None:
        if not answer.done():
            answer.set_result(value)

    def read() -> None:
        try:
            value = typer.confirm(question, err=True)
        except (typer.Abort, OSError):
            value = False
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, value)

    threading.Thread(target=read, daemon=True).start()
    return await answer
