from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from tunechat.serve.commands import toolboxes
from tunechat.serve.commands.agent_view import printable
from tunechat.serve.commands.toolboxes import asker, options_of
from tunechat.serve.contract.errors import ConfigError
from tunechat.serve.settings import load
from tunechat.tools.records import Decision, Permission, ToolCall

CALL = ToolCall("1", "delete", {"path": "a\x1b[2Jb\u202ec", "n": 1})
ASK = Decision(Permission.ASK, False)


class Terminal:
    """A stream that says that somebody sits there."""

    def isatty(self) -> bool:
        return True


def test_settings_become_options(tmp_path: Path) -> None:
    home = str(tmp_path)
    settings = load(
        {"tool_permissions": "now=never", "tool_calls": "3", "tool_search_key": "k"}, {"TUNECHAT_HOME": home}
    )
    options = options_of(settings.settings)
    assert [str(rule) for rule in options.policy.rules] == ["now=never"]
    assert (options.budget.calls, options.search_key, options.mcp) == (3, "k", None)
    (tmp_path / "mcp.json").write_text("{}")
    assert options_of(settings.settings).mcp == tmp_path / "mcp.json"
    with pytest.raises(ConfigError):
        options_of(load({"tool_permissions": "now"}, {"TUNECHAT_HOME": home}).settings)


def test_nobody_is_asked_without_a_terminal() -> None:
    assert asker() is None


@pytest.mark.parametrize("answer", [True, False, None])
async def test_the_question_shows_all_and_obeys_nothing(monkeypatch: pytest.MonkeyPatch, answer: bool | None) -> None:
    asked: list[str] = []

    def confirm(question: str, err: bool) -> bool:
        asked.append(question)
        if answer is None:
            raise typer.Abort
        return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(toolboxes.typer, "confirm", confirm)
    ask = asker()
    assert ask is not None and await ask(CALL, ASK) is bool(answer)
    assert asked[0].startswith("Run delete(") and asked[0].isprintable() and '"n": 1' in asked[0]


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("ä 中\n\tx") == "ä 中\n\tx"
    assert "\x1b" not in printable("\x1b[2J") and "\u202e" not in printable("a\u202eb")
