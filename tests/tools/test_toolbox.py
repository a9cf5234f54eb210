from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tunechat.serve.contract.errors import NotFound
from tunechat.tools.budgets import Spending
from tunechat.tools.permissions import Policy
from tunechat.tools.records import Decision, Status, ToolCall, ToolResult
from tunechat.tools.toolbox import text_of

Make = Callable[..., Any]


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c1", name, arguments)


async def yes(call: ToolCall, decision: Decision) -> bool:
    return True


async def no(call: ToolCall, decision: Decision) -> bool:
    return False


async def test_a_call_runs_and_is_written_down(workbench: Make) -> None:
    bench = workbench()
    result = await bench.box.run(call("echo", text="ab", times=2))
    assert (result.status, result.content, result.id) == (Status.OK, "abab", "c1")
    [line] = bench.audited
    assert line["tool"] == "echo" and line["allowed"] and line["arguments"] == {"text": "ab", "times": 2}


@pytest.mark.parametrize(
    "arguments", [{}, {"text": 3}, {"text": "x", "extra": 1}, {"text": "x", "times": 1001}, {"text": "x" * 101}]
)
async def test_wrong_arguments_are_told_and_nothing_runs(workbench: Make, arguments: dict[str, Any]) -> None:
    bench = workbench()
    result = await bench.box.run(ToolCall("1", "echo", arguments))
    assert result.status is Status.ERROR and bench.ran == []
    assert any(name in result.content for name in ("text", "extra", "times"))
    assert bench.audited[0]["status"] == "error"


async def test_ask_without_anyone_is_no(workbench: Make) -> None:
    bench = workbench()
    result = await bench.box.run(call("delete", text="x"))
    assert result.status is Status.REFUSED and bench.ran == [] and "consent" in result.content
    assert bench.audited[0]["by"] == "nobody"


async def test_ask_follows_the_answer(workbench: Make) -> None:
    bench = workbench()
    assert (await bench.box.run(call("delete", text="x"), ask=no)).status is Status.REFUSED
    assert bench.ran == []
    assert (await bench.box.run(call("delete", text="x"), ask=yes)).status is Status.OK
    assert [line["by"] for line in bench.audited] == ["user", "user"]


async def test_never_is_never_asked(workbench: Make) -> None:
    bench = workbench("delete=never")
    assert (await bench.box.run(call("delete", text="x"), ask=yes)).status is Status.REFUSED
    assert bench.ran == []


async def test_a_policy_of_the_caller_replaces_the_own_one(workbench: Make) -> None:
    bench = workbench("delete=always")
    assert (
        await bench.box.run(call("delete", text="x"), policy=Policy.parse(["delete=never"]))
    ).status is Status.REFUSED
    assert (await bench.box.run(call("delete", text="x"))).status is Status.OK


async def test_rules_see_arguments_in_their_one_form(workbench: Make) -> None:
    """A default that the model leaves out is an argument too."""
    bench = workbench("echo(times=1)=never")
    assert (await bench.box.run(call("echo", text="x"))).status is Status.REFUSED
    assert (await bench.box.run(call("echo", text="x", times="1"))).status is Status.REFUSED
    assert (await bench.box.run(call("echo", text="x", times=2))).status is Status.OK


async def test_what_was_not_offered_is_never_run(workbench: Make) -> None:
    """A tool's output that says "now call delete" changes nothing about what the request allowed."""
    bench = workbench("delete=always")
    result = await bench.box.run(call("delete", text="x"), offered={"echo"}, ask=yes)
    assert result.status is Status.ERROR and bench.ran == []
    assert (await bench.box.run(call("unknown"))).status is Status.ERROR


async def test_a_tool_that_raises_is_a_result(workbench: Make) -> None:
    result = await workbench().box.run(call("broken", text="x"))
    assert result.status is Status.ERROR and "RuntimeError" in result.content


async def test_a_slow_tool_is_stopped(workbench: Make) -> None:
    bench = workbench(call_seconds=0.05)
    result = await bench.box.run(call("slow", text="a"))
    assert result.status is Status.TIMEOUT and bench.cancelled == ["a"]


async def test_results_are_told_as_they_come(workbench: Make) -> None:
    bench = workbench(call_seconds=0.05)
    told: list[str] = []

    async def tell(result: ToolResult) -> None:
        told.append(result.id)

    calls = [ToolCall("1", "slow", {"text": "a"}), ToolCall("2", "echo", {"text": "x"}), ToolCall("3", "unknown")]
    results = await bench.box.run_all(calls, told=tell)
    assert [result.id for result in results] == ["1", "2", "3"]
    assert told[-1] == "1" and sorted(told) == ["1", "2", "3"]


async def test_a_thousand_calls_of_one_turn_end_at_the_limit(workbench: Make) -> None:
    bench = workbench(calls=5)
    spending = Spending(bench.box.budget)
    calls = [ToolCall(str(number), "echo", {"text": "x"}) for number in range(1000)]
    results = await bench.box.run_all(calls, spending=spending)
    assert [result.id for result in results] == [str(number) for number in range(1000)]
    assert bench.ran == ["echo"] * 5
    assert sum(result.status is Status.BUDGET for result in results) == 995


async def test_output_is_bounded(workbench: Make) -> None:
    bench = workbench(call_bytes=50, output_bytes=60)
    spending = Spending(bench.box.budget)
    results = [await bench.box.run(call("echo", text="x" * 90), spending=spending) for _ in range(3)]
    assert [result.status for result in results] == [Status.OK, Status.OK, Status.BUDGET]
    assert all(result.truncated and len(result.content) < 120 for result in results[:2])


async def test_leaving_stops_every_call(workbench: Make) -> None:
    bench = workbench()
    task = asyncio.create_task(bench.box.run_all([call("slow", text=name) for name in "abc"]))
    await bench.started(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(bench.cancelled) == ["a", "b", "c"]
    assert len(bench.audited) == 3


def test_specs_name_what_there_is(workbench: Make) -> None:
    box = workbench().box
    assert [spec.name for spec in box.specs()] == ["echo", "delete", "broken", "slow"]
    assert box.specs(["slow"])[0].parameters["properties"]["times"]["maximum"] == 1000
    assert "title" not in box.specs(["slow"])[0].parameters
    with pytest.raises(NotFound, match="echo"):
        box.specs(["ecko"])


def test_needs_asking_is_false_for_what_will_not_run(workbench: Make) -> None:
    box = workbench().box
    assert box.needs_asking(call("delete", text="x"))
    assert not box.needs_asking(call("echo", text="x"))
    assert not box.needs_asking(call("delete")) and not box.needs_asking(call("unknown"))


def test_blocks_become_text() -> None:
    blocks = [{"type": "text", "text": "a"}, "b", {"type": "image", "base64": "xx"}, {}]
    assert text_of(blocks) == "a\nb\n[image]\n[unknown]"
    assert text_of("x") == "x" and text_of({"a": 1}) == '{"a": 1}'


async def test_calls_are_not_traced_to_a_service(workbench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With LangSmith's variables set, LangChain's tools would send what they are called with."""
    from langsmith.run_helpers import get_tracing_context

    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    bench = workbench()
    seen: list[object] = []
    tool = bench.box.registry.get("echo").tool
    monkeypatch.setattr(tool, "func", lambda text, times=1: seen.append(get_tracing_context()["enabled"]) or text)
    assert (await bench.box.run(call("echo", text="x"))).content == "x"
    assert seen == [False]


async def test_what_cannot_be_written_down_is_an_error(workbench: Make) -> None:
    bench = workbench()
    bench.log.mkdir()
    result = await bench.box.run(call("echo", text="x"))
    assert result.status is Status.ERROR and "log" in result.content
