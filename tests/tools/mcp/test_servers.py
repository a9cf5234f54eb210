"""MCP servers as real children: good ones, and each way to be a bad one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tunechat.serve.contract.errors import NotFound
from tunechat.tools.errors import ToolFailed
from tunechat.tools.mcp.config import ServerConfig
from tunechat.tools.mcp.limits import McpLimits
from tunechat.tools.mcp.pins import Pins
from tunechat.tools.mcp.server import McpServer
from tunechat.tools.mcp.servers import McpServers
from tunechat.tools.permissions import Policy
from tunechat.tools.records import Status, ToolCall, ToolResult
from tunechat.tools.registry import Registry
from tunechat.tools.toolbox import Toolbox

FIXTURE = str(Path(__file__).with_name("fixture_server.py"))
QUICK = McpLimits(start_seconds=30, call_seconds=20, ping_seconds=1, shortest_pause=0.01, longest_pause=0.05)


def config(mode: str, *more: str, **settings: Any) -> ServerConfig:
    return ServerConfig(command=sys.executable, args=(FIXTURE, mode, *more), **settings)


@asynccontextmanager
async def opened(
    folder: Path, limits: McpLimits = QUICK, **modes: ServerConfig
) -> AsyncIterator[tuple[Toolbox, McpServers]]:
    registry = Registry()
    async with McpServers(modes, Pins(folder / "pins.json"), limits) as servers:
        await servers.add_to(registry)
        yield Toolbox(registry, Policy.parse(["*=always"])), servers


async def echo(box: Toolbox, name: str = "s_echo") -> ToolResult:
    return await box.run(ToolCall("1", name, {"text": "hi"}))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if FIXTURE in " ".join(child.cmdline() or [])]


async def test_a_good_servers_tools_run_in_one_session(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("good")) as (box, servers):
        [spec] = box.specs()
        assert (spec.name, spec.origin, spec.effects) == ("s_echo", "mcp s", True)
        assert spec.parameters["required"] == ["text"]
        result = await echo(box)
        assert (result.status, result.content) == (Status.OK, "said: hi")
        first = [child.pid for child in children()]
        await echo(box)
        assert [child.pid for child in children()] == first and len(first) == 1
        assert servers.problems == []
    assert children() == []


async def test_a_server_that_crashes_is_an_error_and_is_started_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("crashes")) as (box, _):
        for _ in range(2):
            result = await echo(box)
            assert result.status is Status.ERROR and "ended during the call" in result.content
            await asyncio.sleep(0.06)
        assert "ended during the call" in (await echo(box)).content


async def test_restarts_have_pauses_that_grow(tmp_path: Path) -> None:
    now = 0.0
    server = McpServer("s", config("crashes"), McpLimits(shortest_pause=10, longest_pause=25), clock=lambda: now)
    for pause in (10, 20, 25):
        with pytest.raises(ToolFailed, match="ended during"):
            await server.call("echo", {"text": "x"})
        with pytest.raises(ToolFailed, match=f"in {pause} seconds"):
            await server.call("echo", {"text": "x"})
        now += pause
    await server.close()


async def test_a_server_that_hangs_is_given_up_and_ended(tmp_path: Path) -> None:
    limits = McpLimits(call_seconds=0.5, shortest_pause=0.01)
    async with opened(tmp_path, limits, s=config("hangs")) as (box, _):
        result = await echo(box)
        assert result.status is Status.ERROR and "did not answer in time" in result.content
        assert children() == []


async def test_a_call_that_is_given_up_leaves_no_hanging_server(tmp_path: Path) -> None:
    server = McpServer("s", config("hangs"), QUICK)
    await server.start()
    [first] = children()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await server.call("echo", {"text": "x"})
    again = asyncio.create_task(server.call("echo", {"text": "x"}))
    await asyncio.to_thread(first.wait, 20)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    await server.close()
    assert children() == []


@pytest.mark.parametrize("mode", ["floods", "long", "babbles"])
async def test_a_server_that_sends_too_much_is_ended(tmp_path: Path, mode: str) -> None:
    async with opened(tmp_path, s=config(mode)) as (box, _):
        result = await echo(box)
        assert result.status is Status.ERROR and "ended during the call" in result.content


async def test_a_greeting_that_is_no_json_is_forgiven(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("malformed")) as (box, _):
        assert (await echo(box)).status is Status.OK


async def test_grandchildren_end_with_the_server(tmp_path: Path) -> None:
    mark = "tunechat-mcp-grandchild"
    async with opened(tmp_path, s=config("grandchild", mark)) as (box, _):
        assert (await echo(box)).status is Status.OK
        grandchildren = [child for child in psutil.Process().children(recursive=True) if mark in child.cmdline()]
        assert len(grandchildren) >= 2
    _, alive = psutil.wait_procs(grandchildren, timeout=10)
    assert alive == []


async def test_a_server_that_does_not_answer_is_a_problem_not_a_wait(tmp_path: Path) -> None:
    limits = McpLimits(start_seconds=2.0)
    began = time.monotonic()
    async with opened(tmp_path, limits, s=config("deaf"), gone=ServerConfig(command="/nonexistent/x")) as (
        box,
        servers,
    ):
        assert len(box.registry) == 0
        assert len(servers.problems) == 2 and "'s' did not start in time" in servers.problems[0]
    assert time.monotonic() - began < 30 and children() == []


async def test_bad_servers_do_not_keep_good_ones_away(tmp_path: Path) -> None:
    async with opened(tmp_path, bad=config("dies"), s=config("good")) as (box, servers):
        assert (await echo(box)).status is Status.OK
        assert len(servers.problems) == 1 and "'bad'" in servers.problems[0]


@pytest.mark.parametrize("mode", ["endless", "many"])
async def test_lists_without_end_are_refused(tmp_path: Path, mode: str) -> None:
    async with opened(tmp_path, s=config(mode)) as (box, servers):
        assert len(box.registry) == 0 and len(servers.problems) == 1


async def test_a_huge_schema_is_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("huge")) as (box, _):
        assert [spec.name for spec in box.specs()] == ["s_echo"]


async def test_names_and_schemas_that_no_model_can_use_are_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("odd")) as (box, servers):
        assert [spec.name for spec in box.specs()] == ["s_echo"]
        assert len(servers.problems) == 3


async def test_a_changed_tool_needs_approval(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("good")) as (box, _):
        assert (await echo(box)).status is Status.OK
    async with opened(tmp_path, s=config("changed")) as (box, servers):
        assert len(box.registry) == 0
        assert len(servers.problems) == 2 and "tunechat tools approve s" in servers.problems[0]
        assert await servers.approve("s") == ["added", "echo"]
        with pytest.raises(NotFound):
            await servers.approve("t")
    async with opened(tmp_path, s=config("changed")) as (box, servers):
        assert (await echo(box)).status is Status.OK and servers.problems == []


async def test_a_tool_that_changes_at_a_restart_is_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path, s=config("good")) as (box, servers):
        await servers.servers["s"].close()
        servers.servers["s"]._config = config("changed")
        result = await echo(box)
        assert result.status is Status.ERROR and "changed since it was approved" in result.content


async def test_errors_and_large_answers_of_tools(tmp_path: Path) -> None:
    async with opened(tmp_path, f=config("fails"), w=config("wide")) as (box, _):
        failed = await echo(box, "f_echo")
        assert (failed.status, failed.content) == (Status.ERROR, "it did not work")
        wide = await echo(box, "w_echo")
        assert wide.truncated and len(wide.content) < 40_000


async def test_only_needed_servers_are_started(tmp_path: Path) -> None:
    registry = Registry()
    modes = {"a": config("good"), "b": config("dies")}
    async with McpServers(modes, Pins(tmp_path / "pins.json"), QUICK) as servers:
        await servers.add_to(registry, needed={"a_echo", "calculate"})
        assert "a_echo" in registry and servers.problems == [] and len(children()) == 1


async def test_the_servers_environment_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_API_KEYS", "a-secret-key")
    async with opened(tmp_path, s=config("good", env={"OWN": "1"})):
        environment = children()[0].environ()
        assert environment["OWN"] == "1" and "TUNECHAT_API_KEYS" not in environment


def test_a_loop_that_shuts_down_ends_the_servers(tmp_path: Path) -> None:
    async def abandons_it() -> None:
        server = McpServer("s", config("good"), QUICK)
        await server.start()
        [process] = children()
        process.suspend()  # so that it does not leave by itself
        asyncio.get_running_loop().create_task(server.close())
        await asyncio.sleep(0.2)

    asyncio.run(abandons_it())
    assert children() == []
