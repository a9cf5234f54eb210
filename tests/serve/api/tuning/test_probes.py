"""Scores of tool calls while a job trains: which rows are asked, when, and what is told of those that are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.api.tuning.quiet import Pace
from tunechat.tests.serve.api.harness import MODEL
from tunechat.tests.serve.api.tuning.lesson import END, JOB, Wall, begun, saved

TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
CALL = '<tool_call>\n{"name": "find", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.fixture
def probes(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: Any) -> Path:
        file = tmp_path / "probes.jsonl"
        file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return file

    return write


def row(*calls: dict[str, Any], question: str = "Where?") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "tools": TOOLS, "calls": list(calls)}


RIGHT = {"name": "find", "arguments": {"city": "Oslo"}}


async def test_tool_calls_are_scored_at_start_twice_between_and_at_the_end(
    train: Any, wall: Wall, probes: Callable[..., Path]
) -> None:
    file = probes(row(RIGHT), row({"function": {"name": "find", "arguments": '{"city": "Rome"}'}}), row())
    served, answers = await train({"answer": CALL})
    await answers.started(JOB, begun(probes=file, prompts=()))
    await wall.until(1)
    figures = {
        "call_or_not": 0.6667,
        "name": 1.0,
        "arguments": 0.5,
        "valid_json": 1.0,
        "invented": 0.0,
        "rows": 3,
    }
    assert wall.notes == [
        (
            "Step 0: tool calls: call or not 67%, names 100%, arguments 50%, valid JSON 100%, invented tools 0%, "
            "of 3 rows",
            {"step": 0, "at": "start", "model": MODEL} | figures,
        )
    ]
    for step in (3, 12, 15, 21, 30):
        await answers.saved(JOB, saved(step), "learned@1")
        await asyncio.wait_for(answers._worker, 5) if answers._worker else None
    await answers.ended(JOB, END, "learned@2")
    assert [(data["step"], data["at"]) for _, data in wall.notes] == [
        (0, "start"),
        (12, "checkpoint"),
        (21, "checkpoint"),
        (20, "end"),
    ]
    assert {params.temperature for _, params in served.engine.submitted} == {0.0}


async def test_rows_that_cannot_be_asked_are_told_and_not_scored(
    train: Any, wall: Wall, probes: Callable[..., Path]
) -> None:
    file = probes(row(RIGHT), row(RIGHT) | {"messages": []}, row(RIGHT, question="w" * 20_000))
    _, answers = await train({"answer": "I cannot."})
    await answers.started(JOB, begun(probes=file, prompts=()))
    await wall.until(2)
    assert (wall.notes[0][1]["rows"], wall.notes[0][1]["call_or_not"]) == (1, 0.0)
    assert wall.messages[1].startswith("Step 0: 2 requests with tools could not be asked: Invalid 'messages'")


async def test_rows_for_which_there_is_no_time_are_never_asked_again(
    train: Any, wall: Wall, probes: Callable[..., Path]
) -> None:
    # The third row is longer than the first two, and what is longer has to wait for the gate.
    served, answers = await train(
        {"answers": [CALL, CALL, "w" * 100] + [CALL] * 9, "gates": {78: asyncio.Event()}, "chunk": 26},
        pace=Pace(longest=1.0, look=0.005),
    )
    await answers.started(JOB, begun(probes=probes(*[row(RIGHT)] * 5), prompts=()))
    await wall.until(1)
    count = wall.notes[0][1]["rows"]
    assert count == 2
    served.engine.gates = {}
    await answers.ended(JOB, END, "learned@2")
    assert wall.notes[1][1]["rows"] == count


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"messages": [], "tools": []}', '{"messages": 1, "tools": [], "calls": []}']
)
async def test_a_file_that_is_none_is_told(train: Any, wall: Wall, probes: Callable[..., Path], line: str) -> None:
    _, answers = await train()
    await answers.started(JOB, begun(probes=probes(row(RIGHT), line), prompts=()))
    await wall.until(1)
    assert wall.messages == [
        "Step 0: tool calls were not scored: line 2 of the held-out requests is none with messages, tools, calls"
    ]


async def test_a_file_that_is_gone_is_told(train: Any, wall: Wall, tmp_path: Path) -> None:
    _, answers = await train()
    await answers.started(JOB, begun(probes=tmp_path / "gone", prompts=()))
    await wall.until(1)
    assert wall.messages == ["Step 0: tool calls were not scored: the file cannot be read"]


async def test_no_more_than_32_rows_are_asked(train: Any, wall: Wall, probes: Callable[..., Path]) -> None:
    served, answers = await train({"answer": "No."})
    await answers.started(JOB, begun(probes=probes(*[row()] * 40), prompts=()))
    await wall.until(1)
    assert wall.notes[0][1]["rows"] == len(served.engine.submitted) == 32
