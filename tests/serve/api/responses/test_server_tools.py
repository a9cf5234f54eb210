"""Tools that the server runs within a response: items that OpenAI's clients know, whole and streamed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.responses.checked import URL, ask, prompt_of, refused, stream, whole
from tunechat.tests.serve.api.tool_bench import ANSWERS, DELETE, ECHO, Make, bench_maker, made


@pytest.fixture
def bench(serve: Serve, tmp_path: Path) -> Make:
    return bench_maker(serve, tmp_path)


async def test_a_call_and_its_result_are_one_item(bench: Make, tmp_path: Path) -> None:
    served = (await bench(*ANSWERS, "Again.", response_store=tmp_path / "r.db")).served
    reply = await whole(served, tools=[ECHO])
    before, call, after = reply.output
    assert [before.type, call.type, after.type] == ["message", "mcp_call", "message"]
    told: Any = call
    assert (told.server_label, told.name, told.status, told.output) == ("tunechat", "echo", "completed", "xxx")
    assert reply.output_text == "Let me see.It is xxx."
    tool: Any = reply.tools[0]
    assert (tool.type, tool.server_label, tool.allowed_tools) == ("mcp", "tunechat", ["echo"])
    spent = reply.model_dump()["tunechat"]["spent"]
    assert (spent["rounds"], spent["calls"], spent["limit"]) == (1, 1, None)
    # The next request knows of it.
    await whole(served, "And?", previous_response_id=reply.id, tools=[ECHO])
    assert "xxx" in prompt_of(served)


async def test_the_stream_tells_of_each_as_it_runs(bench: Make) -> None:
    two = f"{made('echo', text='a', times=1)}\n{made('echo', text='b', times=1)}"
    served = (await bench(two, "Done.")).served
    events = await stream(served, tools=[ECHO], parallel_tool_calls=True)
    kinds = [event["type"].removeprefix("response.") for event in events]
    for kind in ("mcp_call.in_progress", "mcp_call_arguments.done", "mcp_call.completed"):
        assert kinds.count(kind) == 2
    outputs = [item.get("output") for item in events[-1]["response"]["output"]]
    assert outputs == ["a", "b", None]


async def test_a_call_that_is_refused_has_an_error(bench: Make) -> None:
    served = (await bench(made("delete", path="x"), "It may not be.")).served
    reply = await whole(served, tools=[DELETE], tool_choice={"type": "tunechat", "name": "delete"})
    call: Any = reply.output[0]
    assert (call.type, call.status, call.output) == ("mcp_call", "failed", None)
    assert call.error.type == "mcp_tool_execution_error"
    assert reply.output_text == "It may not be."


async def test_what_is_wrong_with_one_is_named(bench: Make) -> None:
    served = (await bench(*ANSWERS)).served
    tools = [{"type": "function", "name": "f"}, {"type": "tunechat", "name": "other"}]
    assert (await refused(served, input="x", tools=tools))["param"] == "tools[1].name"


async def test_they_run_in_the_background_too(bench: Make, tmp_path: Path) -> None:
    served = (await bench(*ANSWERS, response_store=tmp_path / "r.db")).served
    begun = (await served.client.post(URL, json=ask(background=True, tools=[ECHO]))).json()
    runs = served.app.state.desk.background._runs
    await asyncio.gather(*(task for _, task in runs.values()))
    shown = (await served.client.get(f"{URL}/{begun['id']}")).json()
    assert [item["type"] for item in shown["output"]] == ["message", "mcp_call", "message"]
