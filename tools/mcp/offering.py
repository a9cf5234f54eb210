"""tunechat's own tools as an MCP server on stdin and stdout, for other programs that speak MCP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..budgets import Budget, Spending
from ..records import ToolCall
from ..toolbox import Toolbox

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.types import CallToolResult, Tool

NAME = "tunechat"


def mcp_server(box: Toolbox, names: Sequence[str] | None = None) -> Server[Any, Any]:
    """The server that lists and runs the tools `names`, or all. There is nobody to ask, so ASK means no."""
    from mcp.server.lowlevel import Server
    from mcp.types import CallToolResult, TextContent, Tool

    specs = box.specs(names)
    offered = {spec.name for spec in specs}
    # A client decides how long its session is; only single calls are bounded here.
    budget = Budget(call_seconds=box.budget.call_seconds, call_bytes=box.budget.call_bytes, calls=1)
    server: Server[Any, Any] = Server(NAME)

    async def listed() -> list[Tool]:
        return [Tool(name=spec.name, description=spec.description, inputSchema=dict(spec.parameters)) for spec in specs]

    async def called(name: str, arguments: dict[str, Any]) -> CallToolResult:
        result = await box.run(ToolCall("mcp", name, arguments), spending=Spending(budget), offered=offered)
        return CallToolResult(content=[TextContent(type="text", text=result.content)], isError=not result.ok)

    server.list_tools()(listed)  # type: ignore[no-untyped-call]
    server.call_tool(validate_input=False)(called)
    return server


async def serve_stdio(box: Toolbox, names: Sequence[str] | None = None) -> None:
    """Serves until stdin ends."""
    from mcp.server.stdio import stdio_server

    server = mcp_server(box, names)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
