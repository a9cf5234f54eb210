"""Exit codes, and errors in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunechat.serve import cli
from tunechat.serve.commands import root
from tunechat.serve.contract.errors import ConfigError, ModelError, Overloaded
from tunechat.serve.settings import SettingsError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tunechat.serve.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--help",), 0, "Exit codes"),
        (("-h",), 0, "serve"),
        (("--version",), 0, "tunechat 0."),
        (("serve", "--help"), 0, "--insecure"),
        (("no-such-command",), 2, "No such command"),
        (("ps", "--no-such-flag"), 2, "No such option"),
        (("config", "shwo"), 2, "No such command"),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, told: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert told in (done.stdout if code == 0 else done.stderr)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingsError("port: wrong"), 2, "error: port: wrong\n"),
        (ConfigError("port in use"), 2, "error: port in use\n"),
        (ModelError("no such\nmodel"), 1, "error: no such model\n"),
        (Overloaded("busy"), 1, "error: busy\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: Permission denied: /x\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (ModelError("\x1b]0;owned\x07 x"), 1, "error: \N{REPLACEMENT CHARACTER}]0;owned\N{REPLACEMENT CHARACTER} x\n"),
    ],
)
def test_known_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(root, "app", fail)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == code
    assert capsys.readouterr().err == line


def test_unknown_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(root, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


INTERRUPTED = """
import sys
from tunechat.serve import cli
loaded = {"typer", "pydantic", "logging"} & set(sys.modules)
assert not loaded, loaded

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
cli.main()
"""


def test_an_interruption_while_it_loads_shows_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
