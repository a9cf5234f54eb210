"""Tables, sizes and progress."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.commands.output import format_bytes, print_json, print_table, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (96 << 20, "96.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 1 << 60))
def test_size_is_right_within_its_digits(count: int) -> None:
    number, unit = format_bytes(count).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert abs(float(number) * scale - count) <= 0.05 * scale + 1e-6 * count


def test_cells_are_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "value"), [("[red]x[/red]", 1), ("long " * 20, "[/]")])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out and "[/]" in out
    assert len(out.splitlines()) == 3


def test_table_without_column_names_has_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("", ""), [("a", "b")])
    assert capsys.readouterr().out.split() == ["a", "b"]


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ключ": ["漢字", None]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"ключ": ["漢字", None]}
    assert "漢字" in out


def test_no_progress_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("download", 0.5)
        report("hash")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with progress() as report:
        report("download [x]", 0.5)
    assert out.getvalue() == ""
    assert "download [x]" in err.getvalue() and "50%" in err.getvalue()
