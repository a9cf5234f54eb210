"""MS-Agent: calls and results in the answer's text, between marks like `<|startofthink|>` and `<|endofthink|>`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from ..json_text import BadJson, checked, read_json
from ..record import Record
from ..sample import Conversation
from .form import arguments_at, fields_of, list_at, object_at, text_at
from .sharegpt import conversation_of
from .turns import ROLES, Turns

_MARK = "<|startofthink|>"
_PART = re.compile(r"<\|startof(think|exec)\|>(.*?)<\|endof(?:think|exec)\|>", re.DOTALL)
_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$", re.IGNORECASE)
# A tool of the list in the system text: `1. {"name": ...}` on a line of its own.
_TOOL = re.compile(r"^\s*(?:\d{1,4}\.\s*)?(\{.*\"name\".*\})\s*$", re.MULTILINE)
_MAX_LITERAL = 1 << 20


class MSAgent:
    """ModelScope's agent data. Calls and results become messages of their own, and the listed tools become tools."""

    name = "msagent"
    about = '{"conversations": [{"from", "value": "<|startofthink|>{call}<|endofthink|>..."}]}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        field = conversation_of(value)
        if field is None:
            return 0
        turns = value[field]
        texts = [turns] if isinstance(turns, str) else [t.get("value") for t in turns if isinstance(t, Mapping)]
        # Turns without a call are common there, and look like ShareGPT's.
        return 3 if any(isinstance(text, str) and _MARK in text for text in texts) else 2

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        field = conversation_of(value) or "conversations"
        turns = Turns(record)
        tools: list[dict[str, Any]] = []
        for index, item in enumerate(_items(record, value.get(field), field)):
            path = f"{field}[{index}]"
            turn = object_at(record, item, path)
            spelled = str(turn.get("from", turn.get("role", ""))).lower()
            text = turn.get("value", turn.get("content"))
            if ROLES.get(spelled) == "system" and not turns.messages:
                system, tools = _tools_in(text_at(record, text, f"{path}.value"))
                turns.say("system", system)
            elif ROLES.get(spelled) == "assistant" and isinstance(text, str) and _MARK in text:
                _answer(turns, text, f"{path}.value")
            else:
                turns.read([turn], path)
        return turns.conversation(tools=tuple(tools))


def _items(record: Record, value: Any, field: str) -> Any:
    """The turns; some copies hold them as the text of a Python list."""
    if isinstance(value, str) and len(value) <= _MAX_LITERAL:
        try:
            return list_at(record, read_json(value), field)
        except BadJson:
            try:
                return list_at(record, checked(ast.literal_eval(value), value), field)
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                raise record.error("this is no list of turns", "write a JSON list", field=field) from error
    return list_at(record, value, field)


def _answer(turns: Turns, text: str, path: str) -> None:
    said, end = "", 0
    for part in _PART.finditer(text):
        said, end = text[end : part.start()].strip(), part.end()
        body = _FENCE.sub("", part[2])
        if part[1] == "exec":
            if said:
                turns.say("assistant", said)
            turns.result(body.strip())
            continue
        name, arguments = _call(turns.record, body, path)
        turns.call([(name, arguments, None)], said)
    if rest := text[end:].strip():
        turns.say("assistant", rest)


def _call(record: Record, body: str, path: str) -> tuple[str, str]:
    mend = 'write {"api_name": "...", "parameters": {...}} between the marks'
    try:
        call = read_json(body)
    except BadJson as error:
        raise record.error(f"the call: {error}", mend, field=path, kind="json") from error
    name = call.get("api_name", call.get("name")) if isinstance(call, dict) else None
    if not isinstance(name, str) or not name:
        raise record.error("the call has no name", mend, field=path)
    return name, arguments_at(record, call.get("parameters", call.get("arguments")), path)


def _tools_in(system: str) -> tuple[str, list[dict[str, Any]]]:
    """The system text without the tools that it lists, and these. What is no tool stays text."""
    tools, kept, end = [], [], 0
    for match in _TOOL.finditer(system):
        try:
            value = read_json(match[1])
        except BadJson:
            continue
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            tools.append({"type": "function", "function": _function(value)})
            kept.append(system[end : match.start()])
            end = match.end()
    return re.sub(r"\n{3,}", "\n\n", "".join([*kept, system[end:]])).strip(), tools


def _function(value: Mapping[str, Any]) -> dict[str, Any]:
    parameters = value.get("parameters")
    if not isinstance(parameters, list):
        schema = dict(parameters) if isinstance(parameters, Mapping) else {"type": "object", "properties": {}}
    else:
        named = [item for item in parameters if isinstance(item, Mapping) and isinstance(item.get("name"), str)]
        schema = {
            "type": "object",
            "properties": {item["name"]: {"description": str(item.get("description", ""))} for item in named},
            "required": [item["name"] for item in named if item.get("required") in (True, "True", "true")],
        }
    return {"name": value["name"], "description": str(value.get("description", "")), "parameters": schema}
