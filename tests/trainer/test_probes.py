"""Requests of what is held back, as the server reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunechat.serve.api.tuning.probes import read_probes
from tunechat.serve.base.entry import BaseEntry
from tunechat.trainer.data.sample import Conversation, Place, PlainText, Sample
from tunechat.trainer.lessons import read_lessons
from tunechat.trainer.probes import MOST, probes_of, write_probes
from tunechat.trainer.recipe_file import make_recipe

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def asked(number: int, *, calls: bool = True, tools: bool = True, weight: float = 1) -> Conversation:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {number}}}'}}
    answer: dict[str, Any] = {"role": "assistant", "weight": weight} | (
        {"tool_calls": [call]} if calls else {"content": "No."}
    )
    messages = [{"role": "user", "content": f"Add {number}", "weight": 1}, answer]
    return Conversation(messages, Place("a.jsonl", number), TOOLS if tools else ())


def test_requests_have_all_up_to_the_answer_and_its_calls(tmp_path: Path) -> None:
    path = write_probes(tmp_path, probes_of([asked(1), asked(2, calls=False)], (), 0))
    first, second = read_probes(Path(path))
    assert first.messages == [{"role": "user", "content": "Add 1"}]
    assert list(first.tools) == TOOLS
    assert [(call.name, json.loads(call.arguments)) for call in first.right] == [("add", {"a": 1})]
    assert second.right == ()


def test_only_what_has_tools_fits_and_counts(tmp_path: Path) -> None:
    held: list[Sample] = [asked(1, tools=False), PlainText("x", Place("b", 1)), asked(2, weight=0), asked(3), asked(4)]
    (line,) = probes_of([*held, asked(4)], [Place("a.jsonl", 3)], 0)
    assert json.loads(line)["messages"][0]["content"] == "Add 4"
    assert write_probes(tmp_path, ()) == ""
    assert not list(tmp_path.iterdir())


def test_many_are_chosen_from_by_the_seed() -> None:
    held = [asked(number) for number in range(500)]
    some = probes_of(held, (), 1)
    assert len(set(some)) == MOST
    assert some == probes_of(held, (), 1) != probes_of(held, (), 2)


def test_they_come_from_what_is_held_back_alone(tiny_entry: Callable[..., BaseEntry], tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"messages": asked(number).messages, "tools": TOOLS} for number in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = tiny_entry("llama")
    recipe = {"data": str(data), "max_length": 512}
    lessons = read_lessons(make_recipe(recipe | {"validation_split": 0.2}), entry.folder, entry.manifest)
    assert len(lessons.probes) == len(lessons.held) == 4
    assert not read_lessons(make_recipe(recipe), entry.folder, entry.manifest).probes
