from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.audit import Audit, redacted
from tunechat.tools.records import Decision, Permission, Status, ToolCall

SECRET = "sk-abcdefghijklmnop1234567890"


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": SECRET},
        {"text": f"use {SECRET} now"},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": [{"x": f"Bearer {SECRET}"}]},
        {"url": f"https://user:{SECRET}@host/path?token={SECRET}#{SECRET}"},
        {"url": f"see https://host/a?q={SECRET}"},
        {"note": f"password={SECRET}"},
        {"text": "x" * 190 + SECRET},
        {"text": "x" * 195 + " " + SECRET},
    ],
)
def test_secrets_are_not_written_down(arguments: dict[str, object]) -> None:
    assert SECRET not in json.dumps(redacted(arguments))
    assert "abcdefgh" not in json.dumps(redacted(arguments))


def test_what_is_no_secret_can_be_read() -> None:
    assert redacted({"expression": "1+2", "n": 3, "url": "https://a.example/b?c=d"}) == {
        "expression": "1+2",
        "n": 3,
        "url": "https://a.example/b",
    }


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), Json))
def test_any_arguments_make_one_bounded_line(arguments: dict[str, object]) -> None:
    json.dumps(redacted(arguments))


def test_lines_are_whole_and_the_file_is_private(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "deep" / "tools.log")
    call = ToolCall("1", "calculate", {"expression": "1\n2"})

    def write() -> None:
        for _ in range(20):
            audit.write(call, Decision(Permission.ALWAYS, True), Status.OK, seconds=0.5, size=3)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in audit.path.read_text().splitlines()]
    assert len(lines) == 80
    assert lines[0]["tool"] == "calculate" and lines[0]["allowed"] and lines[0]["status"] == "ok"
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600


def test_the_file_stays_bounded(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "tools.log", limit=2000)
    for number in range(100):
        audit.write(ToolCall(str(number), "x" * 50), None, Status.ERROR, seconds=0, size=0)
    assert {path.name for path in tmp_path.iterdir()} == {"tools.log", "tools.log.1"}
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert '"id": "99"' in audit.path.read_text()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "tools.log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"symbolic|loop|Too many"):
        Audit(tmp_path / "tools.log").write(ToolCall("1", "x"), None, Status.OK, seconds=0, size=0)
    assert (tmp_path / "other").read_text() == "kept"
