"""Names that client libraries take for models of OpenAI's, and then treat in ways of their own."""

from __future__ import annotations

# Parts of a model's name, and what clients do when they see one. langchain-openai's model lists and langchain's
# structured output decide so; others do likewise.
_PARTS: tuple[tuple[str, str], ...] = (
    ("codex", "send requests to /v1/responses"),
    ("gpt-5", "send requests to /v1/responses, or leave the temperature out"),
    ("gpt-oss", "ask for JSON schemas instead of tool calls"),
    ("gpt-4o", "ask for JSON schemas instead of tool calls"),
    ("gpt-4.1", "ask for JSON schemas instead of tool calls"),
    ("grok", "ask for JSON schemas instead of tool calls"),
    ("o3-mini", "ask for JSON schemas instead of tool calls"),
    ("o3-pro", "ask for JSON schemas instead of tool calls"),
)
_BEGINNINGS: tuple[tuple[str, str], ...] = (
    ("o1", "change the temperature and send no system message"),
    ("o3", "change the temperature and send no system message"),
    ("o4", "change the temperature and send no system message"),
)


def name_warnings(name: str) -> tuple[str, ...]:
    """A warning for a name that makes clients behave differently, else nothing."""
    lower = name.lower()
    found = next(((part, what) for part, what in _PARTS if part in lower), None)
    if found is None:
        found = next(((part, what) for part, what in _BEGINNINGS if _begins(lower, part)), None)
    if found is None:
        return ()
    part, what = found
    return (f"some clients take a model whose name has {part!r} for OpenAI's own and {what}; another name avoids it",)


def _begins(name: str, part: str) -> bool:
    return name == part or name.startswith((f"{part}-", f"{part}_", f"{part}."))
