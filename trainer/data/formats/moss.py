"""MOSS-003 with plugins: thoughts, commands, results and answers of each turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..json_text import write_json
from ..record import Record
from ..sample import Conversation
from .form import fields_of, object_at, text_at
from .turns import Turns

_EDGES = re.compile(r"^\s*<\|[^|<>]{1,32}\|>:?\s*|\s*<eo[a-z]>\s*$")
_COMMAND = re.compile(r'([A-Za-z_][A-Za-z0-9_]{0,63})\((?:"((?:[^"\\]|\\.)*)"|([^()"]*))\)')
_PLUGIN = re.compile(r"^-\s*(?P<what>[^:\n]{1,80}):\s*(?P<state>enabled|disabled)\.?(?P<rest>.*)$", re.MULTILINE)
_API = re.compile(r"API:\s*([A-Za-z_]\w{0,63})\(\s*(\w{0,64})[^)]*\)")
_HEADING = re.compile(r"^Capabilities and tools that MOSS can possess\.?\s*$", re.MULTILINE)
_ARGUMENTS = {"search": "query", "calculate": "expression", "solve": "equation", "text2image": "description"}


class Moss:
    """Turns under `chat`, each a mapping of what was said, thought, run and found."""

    name = "moss"
    about = (
        '{"meta_instruction", "chat": {"turn_1": {"Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS"}}}'
    )

    def recognises(self, value: Mapping[str, Any]) -> int:
        chat = value.get("chat")
        return 3 * (isinstance(chat, Mapping) and any(str(name).startswith("turn_") for name in chat))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        chat = object_at(record, value.get("chat"), "chat")
        meta = text_at(record, value.get("meta_instruction"), "meta_instruction")
        tools = {tool["function"]["name"]: tool for tool in _plugins(meta)}
        turns = Turns(record, _HEADING.sub("", _PLUGIN.sub("", meta)).strip())
        for name in sorted(chat, key=_number):
            self._turn(turns, object_at(record, chat[name], f"chat.{name}"), f"chat.{name}", tools)
        return turns.conversation(tools=tuple(tools.values()))

    def _turn(self, turns: Turns, turn: Mapping[str, Any], path: str, tools: Mapping[str, Any]) -> None:
        def part(*names: str) -> str:
            name = next((name for name in names if name in turn), names[0])
            return _EDGES.sub("", _EDGES.sub("", text_at(turns.record, turn.get(name), f"{path}.{name}")))

        turns.say("user", part("Human"))
        thought, commands = part("Inner Thoughts"), part("Commands")
        thought = "" if thought.strip().lower() == "none" else thought
        if commands.strip().lower() in ("", "none"):
            turns.say("assistant", part("MOSS"), reasoning_content=thought or None)
            return
        calls = [_call(match, tools) for match in _COMMAND.finditer(commands)]
        if not calls or _COMMAND.sub("", commands).strip(", \n\t;"):
            mend = 'write Name("argument"), or None'
            raise turns.record.error("these are no commands", mend, field=f"{path}.Commands")
        turns.call([(name, arguments, None) for name, arguments in calls], reasoning_content=thought or None)
        results = part("Tool Responses", "Results")
        # All results stand in one text; it belongs to the first call, and the others point to it.
        for index, (name, _) in enumerate(calls):
            turns.result(results if index == 0 else "See above.", name=name)
        turns.say("assistant", part("MOSS"))


def _call(match: re.Match[str], tools: Mapping[str, Any]) -> tuple[str, str]:
    name = match[1]
    known = tools.get(name)
    argument = next(iter(known["function"]["parameters"]["properties"]), "") if known else ""
    argument = argument or _ARGUMENTS.get(name.lower(), "input")
    text = (match[2] if match[2] is not None else match[3]).replace('\\"', '"')
    return name, write_json({argument: text} if text else {})


def _plugins(meta: str) -> list[dict[str, Any]]:
    tools = []
    for plugin in _PLUGIN.finditer(meta):
        api = _API.search(plugin["rest"])
        if plugin["state"] != "enabled" or api is None:
            continue
        properties = {api[2]: {"type": "string"}} if api[2] else {}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": api[1], "description": plugin["what"].strip(), "parameters": parameters}
        tools.append({"type": "function", "function": function})
    return tools


def _number(name: str) -> tuple[int, str]:
    digits = str(name).rpartition("_")[2]
    return (int(digits) if digits.isdecimal() and len(digits) < 9 else 0, str(name))
