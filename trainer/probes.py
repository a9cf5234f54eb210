"""Requests with tools whose right calls are known, from what is held back: what a model is asked while it learns."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..serve.adapters.durable import replace_synced
from .data.sample import Conversation, Place, Sample

PROBES = "probes.jsonl"
MOST = 32
# Longer requests are slow to answer and are left out.
_LONGEST = 1 << 18
# What requests may say; `weight` is for learning only.
_KEYS = ("role", "content", "name", "tool_call_id", "tool_calls", "reasoning_content")


def probes_of(held: Iterable[Sample], too_long: Iterable[Place], seed: int) -> list[str]:
    """At most `MOST` requests as JSON, chosen by the seed: all up to the first answer that counts, and its calls.

    One for each conversation that has tools; those whose right answer is no call are among them. Conversations at the
    places `too_long` do not fit into the model.
    """
    left_out = set(too_long)
    found: dict[str, None] = {}
    for sample in held:
        if isinstance(sample, Conversation) and sample.tools and sample.place not in left_out:
            line = _probe(sample)
            if line is not None and len(line) <= _LONGEST:
                found[line] = None
    lines = list(found)
    chosen = random.Random(seed).sample(range(len(lines)), min(MOST, len(lines)))  # noqa: S311
    return [lines[number] for number in sorted(chosen)]


def write_probes(folder: Path, probes: Sequence[str]) -> str:
    """The path of a file in `folder` with a request a line; "" where there is none."""
    if not probes:
        return ""
    path = folder / PROBES
    replace_synced(path, "".join(f"{line}\n" for line in probes).encode())
    return str(path)


def _probe(sample: Conversation) -> str | None:
    for index, message in enumerate(sample.messages):
        if index and message.get("role") == "assistant" and message.get("weight") != 0:
            asked = [{key: one[key] for key in _KEYS if one.get(key) is not None} for one in sample.messages[:index]]
            calls = [_call(call) for call in message.get("tool_calls") or ()]
            return json.dumps({"messages": asked, "tools": list(sample.tools), "calls": calls}, ensure_ascii=False)
    return None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments, which are text or an object as the file has them."""
    function = call["function"]
    return {"name": function["name"], "arguments": function.get("arguments") or "{}"}
