"""All MCP servers of the user: started together, their tools registered as `{server}_{tool}`, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ...serve.contract.errors import ConfigError, NotFound
from ..errors import ToolFailed
from ..registry import NAME, Registry
from .config import ServerConfig
from .limits import McpLimits
from .pins import Pins
from .server import McpServer

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from mcp.types import Tool

_log = logging.getLogger(__name__)


class McpServers:
    """Use it as an async context manager; the servers live as long. `problems` tells what was left out, and why."""

    def __init__(self, configs: Mapping[str, ServerConfig], pins: Pins, limits: McpLimits | None = None) -> None:
        self.servers = {name: McpServer(name, config, limits) for name, config in configs.items()}
        self.problems: list[str] = []
        self._pins = pins

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(server.close() for server in self.servers.values()))

    async def add_to(self, registry: Registry, needed: Collection[str] | None = None) -> None:
        """Starts the servers and registers their approved tools. With `needed`, only servers that may have one of them.

        A server that does not start is a problem, not an error: the others' tools work.
        """
        chosen = [
            server
            for name, server in self.servers.items()
            if needed is None or any(wanted.startswith(f"{name}_") for wanted in needed)
        ]
        outcomes = await asyncio.gather(*(server.start() for server in chosen), return_exceptions=True)
        for server, outcome in zip(chosen, outcomes, strict=True):
            if isinstance(outcome, ToolFailed):
                self._problem(outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._register(server, registry)

    async def approve(self, name: str) -> list[str]:
        """Takes the tools of one server as they are now, and gives their names. Raises NotFound and ToolFailed."""
        if name not in self.servers:
            raise NotFound(f"there is no MCP server {name[:64]!r}; there are {', '.join(self.servers) or 'none'}")
        server = self.servers[name]
        await server.start()
        self._pins.approve(name, server.fingerprints)
        return sorted(server.tools)

    def _register(self, server: McpServer, registry: Registry) -> None:
        unapproved = self._pins.unapproved(server.name, server.fingerprints)
        for tool in server.tools.values():
            name = f"{server.name}_{tool.name}"
            if tool.name in unapproved:
                told = f"the tool {tool.name[:64]!r} of {server.name!r} is not the one that was approved"
                self._problem(f"{told}; look at it, then `tunechat tools approve {server.name}`")
            elif not NAME.fullmatch(name):
                self._problem(f"{name[:100]!r} is no name of a tool, or longer than 64 characters")
            else:
                try:
                    schema = _schema(tool)
                    registry.add(self._tool(server, tool), origin=f"mcp {server.name}", effects=True, parameters=schema)
                except ConfigError as error:
                    self._problem(error.message)

    def _tool(self, server: McpServer, tool: Tool) -> BaseTool:
        """The LangChain tool, whose calls go to the server that runs at that time."""
        from langchain_mcp_adapters.interceptors import MCPToolCallRequest
        from langchain_mcp_adapters.sessions import StdioConnection
        from langchain_mcp_adapters.tools import convert_mcp_tool_to_langchain_tool

        async def route(request: MCPToolCallRequest, handler: Any) -> Any:
            await server.start()
            # A restart may have brought another tool under the same name.
            if tool.name in self._pins.unapproved(server.name, server.fingerprints):
                raise ToolFailed(f"the tool {tool.name!r} of {server.name!r} has changed since it was approved")
            return await server.call(request.name, request.args)

        nowhere = StdioConnection(transport="stdio", command="", args=[])
        return convert_mcp_tool_to_langchain_tool(
            None,
            tool,
            connection=nowhere,  # never used: `route` takes every call
            tool_interceptors=[route],
            server_name=server.name,
            tool_name_prefix=True,
        )

    def _problem(self, message: str) -> None:
        self.problems.append(message)
        _log.warning("%s", message)


def _schema(tool: Tool) -> dict[str, Any]:
    schema = dict(tool.inputSchema)
    if schema.get("type", "object") != "object" or not isinstance(schema.get("properties", {}), dict):
        raise ConfigError(f"the tool {tool.name[:64]!r} has a schema that is no object")
    return {"type": "object", "properties": {}, **schema}
