"""Files of examples, written by tests, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.record import Record
from tunechat.trainer.data.sample import Conversation, Place, Sample
from tunechat.trainer.data.samples import LOOK, Reading, read_samples, samples_or_errors


def write_lines(path: Path, values: Iterable[Any]) -> Path:
    """JSONL of the values."""
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def one(path: Path, reading: Reading = LOOK) -> Conversation:
    """The only sample of the file, a conversation."""
    (sample,) = read_samples(path, reading)
    assert isinstance(sample, Conversation)
    return sample


def said(sample: Sample) -> list[tuple[str, Any]]:
    """Role and content of each message."""
    assert isinstance(sample, Conversation)
    return [(message["role"], message.get("content")) for message in sample.messages]


def calls(sample: Sample) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    assert isinstance(sample, Conversation)
    functions = [call["function"] for message in sample.messages for call in message.get("tool_calls", ())]
    return [(function["name"], function["arguments"]) for function in functions]


def errors(path: Path, reading: Reading = LOOK) -> list[InvalidData]:
    return [item for item in samples_or_errors(path, reading) if isinstance(item, InvalidData)]


def record(value: Any) -> Record:
    return Record(value, Place("data.jsonl", 7))


def chat(*messages: Mapping[str, Any] | tuple[str, str], **more: Any) -> Conversation:
    """A conversation of (role, content) pairs and whole messages."""
    whole = [m if isinstance(m, Mapping) else {"role": m[0], "content": m[1]} for m in messages]
    return Conversation(tuple(whole), more.pop("place", Place("data.jsonl", 7)), **more)


def call(name: str, arguments: str, id_: str = "call_1") -> dict[str, Any]:
    """A message that makes one call."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": id_, "type": "function", "function": function}]}


def result(content: str, id_: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id_}


def tool(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {"type": "object"}}}
