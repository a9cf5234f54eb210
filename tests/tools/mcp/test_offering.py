"""tunechat's tools, reached through the official MCP client: by stdio as a process, and our own client by HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.memory import create_connected_server_and_client_session
from starlette.applications import Starlette
from starlette.routing import Mount

from tunechat.tools.mcp.config import ServerConfig
from tunechat.tools.mcp.limits import McpLimits
from tunechat.tools.mcp.offering import mcp_server
from tunechat.tools.mcp.pins import Pins
from tunechat.tools.mcp.servers import McpServers
from tunechat.tools.permissions import Policy
from tunechat.tools.records import Status, ToolCall
from tunechat.tools.registry import Registry
from tunechat.tools.toolbox import Toolbox

Make = Callable[..., Any]


async def test_lists_and_runs_what_is_offered(workbench: Make) -> None:
    bench = workbench()
    async with create_connected_server_and_client_session(mcp_server(bench.box, ["echo", "delete"])) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["echo", "delete"]
        assert tools[0].inputSchema["properties"]["times"]["maximum"] == 1000
        answer = await client.call_tool("echo", {"text": "a", "times": 3})
        assert not answer.isError and answer.content[0].text == "aaa"  # type: ignore[union-attr]
        for name, arguments in (("echo", {"text": 1}), ("delete", {"text": "x"}), ("slow", {"text": "x"}), ("no", {})):
            assert (await client.call_tool(name, arguments)).isError
    assert bench.ran == ["echo"]


async def test_the_command_serves_the_official_client(tmp_path: Path) -> None:
    environment = {**os.environ, "TUNECHAT_HOME": str(tmp_path)}
    code = "from tunechat.serve.cli import main; main()"
    parameters = StdioServerParameters(
        command=sys.executable, args=["-c", code, "tools", "mcp", "--tools", "calculate"], env=environment
    )
    async with stdio_client(parameters) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        await session.initialize()
        assert [tool.name for tool in (await session.list_tools()).tools] == ["calculate"]
        answer = await session.call_tool("calculate", {"expression": "6*7"})
        assert answer.content[0].text == "42"  # type: ignore[union-attr]


@asynccontextmanager
async def served_by_http(box: Toolbox) -> AsyncIterator[str]:
    """The tools of `box` by streamable HTTP on the loopback."""
    manager = StreamableHTTPSessionManager(mcp_server(box), stateless=False)
    app = Starlette(routes=[Mount("/mcp", app=manager.handle_request)], lifespan=lambda app: manager.run())
    config = uvicorn.Config(app, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp/"
        finally:
            server.should_exit = True
            await task


async def test_a_server_by_http(workbench: Make, tmp_path: Path) -> None:
    bench = workbench(call_bytes=1 << 20)
    registry = Registry()
    box = Toolbox(registry, Policy.parse(["*=always"]))
    limits = McpLimits(flood_bytes=20_000, call_seconds=4, shortest_pause=0.01)
    async with served_by_http(bench.box) as url:
        servers = {"web": ServerConfig(url=url), "gone": ServerConfig(url="http://127.0.0.1:9/mcp")}
        async with McpServers(servers, Pins(tmp_path / "pins.json"), limits) as opened:
            await opened.add_to(registry)
            assert len(opened.problems) == 1 and "'gone'" in opened.problems[0]
            result = await box.run(ToolCall("1", "web_echo", {"text": "hi"}))
            assert (result.status, result.content) == (Status.OK, "hi")
            flood = await box.run(ToolCall("2", "web_echo", {"text": "x" * 100, "times": 1000}))
            assert flood.status is not Status.OK


@pytest.mark.parametrize("name", ["echo"])
async def test_policies_hold_for_mcp_clients_too(workbench: Make, name: str) -> None:
    bench = workbench(f"{name}=ask")
    async with create_connected_server_and_client_session(mcp_server(bench.box)) as client:
        assert (await client.call_tool(name, {"text": "a"})).isError
    assert bench.ran == []
