"""`tunechat data preview`: what is learned is told from what is not, and nothing of a file steers the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunechat.serve.commands.data_preview import printable

from .conftest import Done

Tunechat = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path, home: Path, default_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECHAT_HOME", str(default_home))
    path = tmp_path / "data.jsonl"
    chats = [
        [("user", "Who are you? \x1b[31m"), ("assistant", "I am Tune.")],
        [("user", "Hi"), ("assistant", "one"), ("user", "and"), ("assistant", "two")],
        [("user", "x"), ("nobody", "y")],
    ]
    lines = [{"messages": [{"role": role, "content": said} for role, said in chat]} for chat in chats]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_marks_what_is_learned(tunechat: Tunechat, data: Path) -> None:
    done = tunechat("data", "preview", str(data), "-n", "2")
    assert done.code == 0
    assert "«I am Tune.<|im_end|>»" in done.out
    assert "«one<|im_end|>»" in done.out and "«two<|im_end|>»" in done.out
    assert "\x1b" not in done.out and r"\x1b[31m" in done.out
    last = tunechat("data", "preview", str(data), "--skip", "1", "-n", "1", "--last-turn-only").out
    assert "«one" not in last and "«two<|im_end|>»" in last


def test_tells_programs_the_same(tunechat: Tunechat, data: Path) -> None:
    done = tunechat("data", "preview", str(data), "--json")
    first, _, wrong = json.loads(done.out)
    (row,) = first["rows"]
    assert [(piece["text"], piece["weight"]) for piece in row][1:] == [("I am Tune.<|im_end|>", 1)]
    assert done.code == 1 and "data.jsonl:3" in wrong["error"]


def test_shows_plain_text(tunechat: Tunechat, data: Path) -> None:
    text = data.with_name("book.txt")
    text.write_text("Once upon a time.")
    assert "Once« upon a time.<|im_end|>»" in tunechat("data", "preview", str(text)).out


def test_writes_steering_characters_as_escapes() -> None:
    assert printable("a\tb\n\x1b]0;x\x07\u202eé") == "a\tb\n\\x1b]0;x\\x07\\u202eé"
