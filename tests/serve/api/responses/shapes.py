"""Requests as Codex and the Agents SDK send them: their fields and items, with texts of our own."""

from __future__ import annotations

from typing import Any

CODEX_HEADERS = {"originator": "codex_exec", "user-agent": "codex_exec/0.159.2 (Linux; x86_64) unknown"}
SERVED_BY_CLIENT = ("exec_command", "write_stdin", "update_plan", "view_image")


def function(name: str, *required: str, strict: bool = False, **properties: str) -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "description": f"Does what {name} says.",
        "strict": strict,
        "parameters": {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in properties.items()},
            "required": list(required),
            "additionalProperties": False,
        },
    }


def text(role: str, *texts: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": one} for one in texts]}


def codex(model: str, *more: dict[str, Any], instructions: str = "You work on code in a terminal.") -> dict[str, Any]:
    """What `codex exec` posts for a provider and a model that it does not know, with one MCP server set up."""
    return {
        "model": model,
        "instructions": instructions,
        "input": [
            text("developer", "<permissions instructions>Nothing but reading.</permissions instructions>"),
            text(
                "user", "# Rules of this folder\n\nBe kind.", "<environment_context><cwd>/x</cwd></environment_context>"
            ),
            text("user", "Which files are here?"),
            *more,
        ],
        "tools": [
            function("exec_command", "cmd", cmd="string", yield_time_ms="integer"),
            function("write_stdin", "session_id", session_id="integer", chars="string"),
            function("update_plan", explanation="string"),
            function("view_image", "path", path="string"),
            {"type": "web_search", "external_web_access": False},
            {
                "type": "namespace",
                "name": "mcp__docs",
                "description": "Tools of docs.",
                "tools": [function("look_up", "query", query="string")],
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": None,
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199a213-81c0-7800-8aa1-bbab2a035a53",
        "client_metadata": {"x-codex-installation-id": "0199a213"},
    }


def agents(model: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What `Runner.run(agent, "...")` posts for an agent with one function tool and a handoff."""
    return {
        "model": model,
        "instructions": "You tell the weather.",
        "input": [{"content": "How is it in Oslo?", "role": "user"}, *more],
        "include": [],
        "tools": [
            function("get_weather", "city", strict=True, city="string"),
            function("transfer_to_spanish_agent", strict=True),
        ],
    } | fields
