"""`tunechat tools` and `tunechat agent`, as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunechat.tests.tools.scripted import Turn, in_order, scripted_model

from .conftest import Done

Tunechat = Callable[..., Done]
FIXTURE = Path(__file__).parents[2] / "tools" / "mcp" / "fixture_server.py"


@pytest.fixture
def mode(home: Path) -> Callable[[str], None]:
    """Sets how the MCP server `s` behaves."""
    home.mkdir(exist_ok=True)

    def write(mode: str) -> None:
        server = {"command": sys.executable, "args": [str(FIXTURE), mode]}
        (home / "mcp.json").write_text(json.dumps({"mcpServers": {"s": server}}))

    return write


def test_lists_tools_with_their_permissions(
    tunechat: Tunechat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECHAT_TOOL_ROOT", str(tmp_path))
    monkeypatch.setenv("TUNECHAT_TOOL_PERMISSIONS", "now=never")
    done = tunechat("tools", "list", "--json")
    specs = {spec["name"]: spec for spec in json.loads(done.out)}
    assert list(specs) == ["calculate", "solve", "now", "read_file", "list_files", "grep"]
    assert specs["calculate"]["parameters"]["required"] == ["expression"]
    table = tunechat("tools", "list")
    assert "calculate" in table.out and "now=never" in table.err


def test_runs_a_tool_as_a_model_would(tunechat: Tunechat, home: Path) -> None:
    assert tunechat("tools", "run", "calculate", '{"expression": "6*7"}').out == "42\n"
    done = tunechat("tools", "run", "calculate", '{"expression": "1/0"}', "--json")
    assert done.code == 1 and json.loads(done.out)["content"] == "division by zero"
    assert len((home / "tools.log").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("calculate", "{"), "no JSON"),
        (("calculate", "{}"), "expression"),
        (("nowhere",), "there is no tool"),
    ],
)
def test_mistakes_are_one_line(tunechat: Tunechat, arguments: tuple[str, ...], told: str) -> None:
    done = tunechat("tools", "run", *arguments)
    assert done.code == 1 and told in done.err and done.out == "" and len(done.err.splitlines()) == 1


def test_ask_without_a_terminal_is_no(tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_TOOL_PERMISSIONS", "calculate=ask")
    done = tunechat("tools", "run", "calculate", '{"expression": "1"}')
    assert done.code == 1 and "consent" in done.err
    assert tunechat("tools", "run", "-y", "calculate", '{"expression": "1"}').out == "1\n"
    monkeypatch.setenv("TUNECHAT_TOOL_PERMISSIONS", "calculate=perhaps")
    assert tunechat("tools", "list").code == 2


def test_the_search_key_is_never_shown(tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_TOOL_SEARCH_KEY", "the-search-key")
    for command in (("config", "show"), ("config", "show", "--json"), ("tools", "list", "--json")):
        done = tunechat(*command)
        assert done.code == 0 and "the-search-key" not in done.out + done.err


def test_mcp_tools_run_and_changes_need_approval(tunechat: Tunechat, mode: Callable[[str], None]) -> None:
    mode("good")
    assert tunechat("tools", "run", "-y", "s_echo", '{"text": "hi"}').out == "said: hi\n"
    mode("changed")
    done = tunechat("tools", "list", "--json")
    assert "s_echo" not in done.out and "tunechat tools approve s" in done.err
    assert tunechat("tools", "approve", "s").out == "approved 2 tools of s: added, echo\n"
    assert "s_added" in tunechat("tools", "list", "--json").out


def test_approving_without_servers_is_an_error(tunechat: Tunechat) -> None:
    assert tunechat("tools", "approve", "s").code == 2


def test_an_agent_answers_with_tools(tunechat: Tunechat) -> None:
    script = in_order(Turn("I compute", (("calculate", {"expression": "6*7"}),)), Turn("It is 42"))
    with scripted_model(script) as model:
        done = tunechat("agent", "what is it?", "--url", model.url, "--tools", "calc*", "--system", "be brief")
        assert done.code == 0 and done.out == "I compute \nIt is 42 \n"
        assert '→ calculate({"expression": "6*7"})' in done.err and "← calculate: 42" in done.err
        assert "tiny@1 fp_1" in done.err
        assert model.requests[0]["model"] == "tiny"
        assert model.requests[0]["messages"][0] == {"role": "system", "content": "be brief"}
        assert [tool["function"]["name"] for tool in model.requests[0]["tools"]] == ["calculate"]
        model.requests.clear()
        done = tunechat("agent", "what?", "--url", model.url, "--model", "support", "--json", "--api-key", "a-long-key")
        steps = done.out.replace("}\n{", "}\0{").split("\0")
        assert [json.loads(step)["step"] for step in steps] == ["called", "returned", "finished"]
        assert model.requests[0]["model"] == "support" and model.headers[-1]["authorization"] == "Bearer a-long-key"


def test_an_agent_without_a_terminal_is_refused_what_needs_asking(
    tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECHAT_TOOL_PERMISSIONS", "calculate=ask")
    script = in_order(Turn(calls=(("calculate", {"expression": "6*7"}),)), Turn("ok"))
    with scripted_model(script) as model:
        done = tunechat("agent", "what?", "--url", model.url)
        assert done.code == 0 and "✗ calculate: this call needs the consent" in done.err
        done = tunechat("agent", "what?", "--url", model.url, "--yes")
        assert "← calculate: 42" in done.err


def test_what_an_agent_writes_cannot_move_the_terminal(tunechat: Tunechat) -> None:
    with scripted_model(in_order(Turn("\x1b[2Jx\x1b]0;title\x07"))) as model:
        done = tunechat("agent", "what?", "--url", model.url)
    assert "\x1b" not in done.out and "\x07" not in done.out and "x" in done.out


def test_errors_of_the_server_are_one_line(tunechat: Tunechat) -> None:
    with scripted_model(in_order(Turn("x"))) as model:
        done = tunechat("agent", "what?", "--url", model.url, "-m", "missing")
        assert done.code == 1 and done.err == "error: no such model\n"
        done = tunechat("agent", "what?", "--url", model.url, "--tools", "calculator")
        assert done.code == 1 and "there is no tool 'calculator'" in done.err
    done = tunechat("agent", "what?", "--url", "http://127.0.0.1:9", "-m", "tiny")
    assert done.code == 1 and "tunechat serve" in done.err
