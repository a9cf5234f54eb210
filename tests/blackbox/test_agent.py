"""The agent, and tools that the server runs, with the default model. What it calls is its affair; the form is ours."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tunechat.tests.blackbox.server import COMMAND, MODEL, Server, environment, serving, wait_until
from tunechat.tools.agent.model import opened_chat
from tunechat.tools.agent.run import Called, Finished, Returned, Step, run_agent
from tunechat.tools.budgets import Budget
from tunechat.tools.options import ToolOptions
from tunechat.tools.permissions import Policy
from tunechat.tools.toolbox import Toolbox

NOW = {"type": "tunechat", "name": "now"}
WAIT = {"type": "tunechat", "name": "wait"}
# One call of one tool first, whose arguments are short whatever the model thinks.
FORCED: dict[str, Any] = {"tools": [NOW], "tool_choice": NOW, "parallel_tool_calls": False}
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What day is it?"}],
    "temperature": 0,
    "max_tokens": 100,
}
SECONDS = "4321"
MCP = str(Path(__file__).parent.parent / "tools" / "mcp" / "fixture_server.py")
TOOLS = f'''
from langchain_core.tools import tool
from tunechat.tools.processes import Confinement, run_confined


@tool
async def wait() -> str:
    """Waits."""
    done = await run_confined(["/bin/sleep", "{SECONDS}"], limits=Confinement(seconds=600))
    return done.output
'''


def processes(server: Server, word: str) -> list[psutil.Process]:
    """What the gateway has started, directly or not, with `word` in its command line."""
    found = []
    for child in server.gateway.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(scope="module")
def tooled(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may run two tools, one of them of the user's own."""
    folder = tmp_path_factory.mktemp("tools")
    file = folder / "mine.py"
    file.write_text(TOOLS)
    mcp = folder / "mcp.json"
    servers = {"good": "good", "gone": "dies"}
    mcp.write_text(
        json.dumps(
            {"mcpServers": {name: {"command": sys.executable, "args": [MCP, how]} for name, how in servers.items()}}
        )
    )
    settings = {
        "server_tools": "now,wait,good_*,gone_*",
        "tool_files": file,
        "tool_mcp": mcp,
        "tool_permissions": "wait=always,good_echo=always",
        # After it the model is not offered tools any more, and must answer.
        "tool_rounds": 1,
    }
    log = folder / "server.log"
    with serving(default_home, log, max_context=2048, cache_bytes="128MiB", heartbeat_seconds=1, **settings) as server:
        yield server
        server.wait_idle()
        (child,) = processes(server, MCP)
        assert server.end() == 0
        wait_until(lambda: not child.is_running(), 5, "the MCP server is gone")
    assert "Traceback" not in log.read_text()


@pytest.fixture
def client(tooled: Server) -> Iterator[openai.OpenAI]:
    with (
        httpx.Client(trust_env=False) as http,
        openai.OpenAI(base_url=f"{tooled.url}/v1", api_key="any", max_retries=0, http_client=http) as client,
    ):
        yield client


def test_what_may_be_run_is_listed(tooled: Server) -> None:
    listed = tooled.http.get("/v1/tools").json()["data"]
    assert [(tool["name"], tool["permission"], tool["effects"]) for tool in listed] == [
        ("now", "always", False),
        ("wait", "always", True),
        ("good_echo", "always", True),
    ]


def test_a_tool_of_an_mcp_server_is_run(client: openai.OpenAI) -> None:
    named = {"type": "tunechat", "name": "good_echo"}
    body = {"tools": [named], "tool_choice": named, "parallel_tool_calls": False, "max_tokens": 80}
    reply: Any = client.chat.completions.create(**ASK | {"extra_body": body})
    (step,) = reply.choices[0].message.tunechat["steps"][:1]
    assert step["tool_call"]["name"] == "good_echo"
    # A small model may write an endless text; then the call is shown, and not run.
    assert step["tool_result"]["status"] == "ok" or "not run" in step["tool_result"]["content"]


def check(message: Any) -> None:
    """A message with one call, which the server has run, and an answer that came after it."""
    assert message.tool_calls is None
    (step,) = message.tunechat["steps"][:1]
    assert step["tool_call"]["name"] == "now"
    assert isinstance(json.loads(step["tool_call"]["arguments"]), dict)
    assert step["tool_result"]["status"] == "ok" and "UTC" in step["tool_result"]["content"]
    spent = message.tunechat["spent"]
    assert (spent["rounds"], spent["calls"], spent["limit"]) == (1, 1, "rounds")
    assert "<tool_call>" not in (message.content or "")


def test_openais_client_streams_and_gets_what_the_whole_reply_has(client: openai.OpenAI) -> None:
    ask = ASK | {"extra_body": FORCED}
    whole = client.chat.completions.create(**ask)
    check(whole.choices[0].message)
    with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        for event in stream:
            assert event.type in ("chunk", "content.delta", "content.done")
        streamed = stream.get_final_completion()
    check(streamed.choices[0].message)
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage is not None and streamed.usage is not None
    # What the clock says may differ, and the model's words after it.
    assert streamed.usage.prompt_tokens == pytest.approx(whole.usage.prompt_tokens, abs=20)


async def test_a_server_tool_through_langchain(tooled: Server) -> None:
    async with opened_chat(MODEL, f"{tooled.url}/v1", temperature=0, max_tokens=100, max_retries=0) as chat:
        message = await chat.bind_tools([NOW], tool_choice="any", parallel_tool_calls=False).ainvoke("What day is it?")
        assert message.tool_calls == [] and message.usage_metadata["output_tokens"] > 10
        assert message.additional_kwargs["tunechat"]["steps"][0]["tool_result"]["status"] == "ok"
        # The model reads what the server did before.
        again = await chat.ainvoke(["What day is it?", message, "Thanks."], max_tokens=4)
        assert again.usage_metadata["input_tokens"] > message.usage_metadata["output_tokens"]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_that_leaves_ends_the_tools_processes(tooled: Server, streaming: bool) -> None:
    asked = ASK | {"tools": [WAIT], "tool_choice": "required", "parallel_tool_calls": False, "stream": streaming}
    body = json.dumps(asked).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
    with socket.create_connection(tooled.address) as connection:
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: bool(processes(tooled, SECONDS)), 20, "the tool's process runs")
    wait_until(lambda: not processes(tooled, SECONDS), 10, "the tool's processes are gone")


@pytest.mark.parametrize("rule", ["now=always", "now=ask"])
async def test_the_agent_of_langchain_keeps_to_the_policy(tooled: Server, tmp_path: Path, rule: str) -> None:
    options = ToolOptions(home=tmp_path, policy=Policy.parse([rule]), entry_points=False, budget=Budget(rounds=1))
    box = Toolbox.of(options)
    async with opened_chat(
        MODEL, f"{tooled.url}/v1", temperature=0, max_tokens=64, streaming=True, max_retries=0
    ) as chat:
        steps: list[Step] = [step async for step in run_agent(chat, box, ["now"], "What day is it?", must_call=True)]
    called = [step for step in steps if isinstance(step, Called)]
    returned = [step for step in steps if isinstance(step, Returned)]
    assert len(called) == len(returned) >= 1
    assert {str(step.result.status) for step in returned} == {"ok" if rule == "now=always" else "refused"}
    end = steps[-1]
    assert isinstance(end, Finished) and end.model == MODEL and end.usage["output_tokens"] > 0


def test_the_command_shows_calls_and_results(tooled: Server, tmp_path: Path) -> None:
    command = [COMMAND, "agent", "What day is it?", "--tools", "now", "--must-call", "--url", tooled.url]
    done = subprocess.run(
        [*command, "--temperature", "0", "--max-tokens", "64"],
        env=environment(tmp_path, tool_rounds=1),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert any(line.startswith("→ now({") for line in lines)
    assert any(line.startswith("← now: ") and "UTC" in line for line in lines)
    assert MODEL in lines[-1] and "tool calls" in lines[-1]
    audited = [json.loads(line) for line in (tmp_path / "tools.log").read_text().splitlines()]
    assert {(line["tool"], line["status"]) for line in audited} == {("now", "ok")}
