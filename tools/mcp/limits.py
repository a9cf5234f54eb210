"""How much of an MCP server is put up with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class McpLimits:
    """Seconds are of one request; bytes and messages are what a server may send between two of our requests."""

    start_seconds: float = 30.0
    call_seconds: float = 25.0
    ping_seconds: float = 2.0
    line_bytes: int = 4 << 20
    flood_bytes: int = 16 << 20
    flood_messages: int = 2000
    malformed_lines: int = 20
    tools: int = 128
    pages: int = 16
    schema_bytes: int = 64 << 10
    shortest_pause: float = 0.5
    longest_pause: float = 60.0
