"""Samples in OpenAI's form, a line of JSON each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...serve.contract.errors import Conflict
from .json_text import write_json
from .sample import Conversation, Sample


def as_openai(sample: Sample) -> dict[str, Any]:
    """The sample as OpenAI's fine-tuning takes it; plain text, for which it has no form, as `text`."""
    if not isinstance(sample, Conversation):
        return {"text": sample.text}
    tools: dict[str, Any] = {"tools": list(sample.tools)} if sample.tools else {}
    if not sample.parallel_tool_calls:
        tools["parallel_tool_calls"] = False
    if not sample.rejected:
        return {"messages": list(sample.messages), **tools}
    begin = answer_begin(sample)
    return {
        "input": {"messages": list(sample.messages[:begin]), **tools},
        "preferred_output": list(sample.messages[begin:]),
        "non_preferred_output": list(sample.rejected),
    }


def answer_begin(sample: Conversation) -> int:
    """At which message the chosen answer of a pair begins: behind the last one of the user."""
    users = [index for index, message in enumerate(sample.messages) if message["role"] == "user"]
    return users[-1] + 1 if users else max(len(sample.messages) - 1, 0)


def write_openai(samples: Iterable[Sample], path: Path, *, force: bool = False) -> int:
    """Write the samples to `path`, and give how many they are. The file is whole, or not there.

    Raises Conflict where it is there already, unless `force`.
    """
    if path.exists() and not force:
        raise Conflict(f"{path} exists; name another file, or write over it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        count = 0
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for sample in samples:
                file.write(write_json(as_openai(sample)) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return count
