"""`tunechat tools`: the tools that models may call; try one, or offer them all to another program."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from ..settings import load
from .options import Json
from .output import print_json, print_table

if TYPE_CHECKING:
    from ...tools.records import Decision, ToolCall

app = typer.Typer(help="List the tools that models may call, try one, or offer them by MCP.", no_args_is_help=True)


@app.command("list")
def list_tools(json: Json = False) -> None:
    """List the tools, where each comes from, and who may run it."""
    from .toolboxes import opened_toolbox, options_of

    options = options_of(load().settings)

    async def specs() -> list[dict[str, object]]:
        async with opened_toolbox(options) as box:
            return [spec.as_json() for spec in box.specs()]

    found = asyncio.run(specs())
    if json:
        print_json(found)
        return
    print_table(
        ("tool", "permission", "from", "does"),
        [(spec["name"], spec["permission"], spec["origin"], spec["description"]) for spec in found],
    )
    if rules := [str(rule) for rule in options.policy.rules]:
        typer.echo(f"rules: {', '.join(rules)}", err=True)


@app.command("run")
def run_tool(
    name: Annotated[str, typer.Argument(help="Name of the tool.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, as a JSON object.")] = "{}",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run it without asking where the policy says ask.")] = False,
    json: Json = False,
) -> None:
    """Run one tool as a model would, with the same checks and limits."""
    from ...tools.records import ToolCall, ToolResult
    from .agent_view import printable
    from .toolboxes import asker, opened_toolbox, options_of

    options = options_of(load().settings)
    call = ToolCall.of_json("cli", name, arguments)

    async def consent(call: ToolCall, decision: Decision) -> bool:
        return True

    async def run() -> ToolResult:
        async with opened_toolbox(options, needed={name}) as box:
            box.registry.get(name)
            return await box.run(call, ask=consent if yes else asker())

    result = asyncio.run(run())
    if json:
        print_json(result.as_json())
    else:
        typer.echo(printable(result.content), err=not result.ok)
    if not result.ok:
        raise typer.Exit(1)


@app.command("approve")
def approve(server: Annotated[str, typer.Argument(help="Name of an MCP server.")], json: Json = False) -> None:
    """Approve the tools of an MCP server as they are now. A tool that changes later is not run until then."""
    from .toolboxes import mcp_servers, options_of

    options = options_of(load().settings)

    async def approved() -> list[str]:
        async with mcp_servers(options) as servers:
            return await servers.approve(server)

    names = asyncio.run(approved())
    if json:
        print_json(names)
    else:
        typer.echo(f"approved {len(names)} tools of {server}: {', '.join(names)}")


@app.command("mcp")
def offer(
    tools: Annotated[str, typer.Option("--tools", help="Names, separated by commas. Default: all.")] = "",
) -> None:
    """Offer the tools to another program, as an MCP server on stdin and stdout. Where the policy says ask, it is no."""
    from ...tools.mcp.offering import serve_stdio
    from .toolboxes import opened_toolbox, options_of

    options = options_of(load().settings)
    names = [name.strip() for name in tools.split(",") if name.strip()] or None

    async def serve() -> None:
        async with opened_toolbox(options, needed=names) as box:
            await serve_stdio(box, names)

    asyncio.run(serve())
