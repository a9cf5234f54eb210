from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tunechat.tools.builtin.files import GrepArgs, ReadFileArgs, grep, list_files, make, read_file
from tunechat.tools.errors import ToolFailed
from tunechat.tools.paths import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "plan.md").write_text("".join(f"line {number}\n" for number in range(1, 501)))
    (tmp_path / "notes" / "größe.txt").write_text("Größe\n")
    (tmp_path / "binary.bin").write_bytes(b"\0\1\2line 7")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "long.txt").write_text("x" * 10_000)
    return Root(tmp_path)


def test_reads_numbered_lines_and_tells_what_is_left(root: Root) -> None:
    assert read_file(root, "notes/plan.md", 499) == "499\tline 499\n500\tline 500"
    assert read_file(root, "notes/plan.md", 1, 2).splitlines() == [
        "1\tline 1",
        "2\tline 2",
        "[498 more lines; go on with start=3]",
    ]
    assert read_file(root, "empty.txt") == "[the file is empty]"
    assert len(read_file(root, "long.txt")) < 2100


def test_binary_files_and_lines_past_the_end_are_refused(root: Root) -> None:
    with pytest.raises(ToolFailed, match="no text"):
        read_file(root, "binary.bin")
    with pytest.raises(ToolFailed, match="500 lines"):
        read_file(root, "notes/plan.md", 501)


def test_lists_a_folder_or_what_matches_below(root: Root) -> None:
    assert list_files(root).splitlines() == ["binary.bin\t9", "empty.txt\t0", "long.txt\t10000", "notes/"]
    assert list_files(root, "", "*.md").startswith("notes/plan.md\t")
    assert list_files(root, "", "*.rs") == "[nothing]"
    with pytest.raises(ToolFailed, match="there is no"):
        list_files(root, "nowhere")


def test_greps_text_not_patterns(root: Root) -> None:
    assert grep(root, "LINE 77") == "notes/plan.md:77:line 77"
    assert grep(root, "LINE 77", ignore_case=False) == "[nothing found]"
    assert grep(root, "grösse".replace("ss", "ß")) == "notes/größe.txt:1:Größe"
    assert grep(root, "(a+)+$") == "[nothing found]"
    assert grep(root, "line 7", pattern="*.bin") == "[nothing found]"
    assert grep(root, "line").splitlines()[-1] == "[stopped after 500 lines]"


def test_arguments_are_bounded_and_in_one_form() -> None:
    assert ReadFileArgs(path="./notes//plan.md").path == "notes/plan.md"
    for bad in ({"path": "../x"}, {"path": ""}, {"path": "a", "start": 0}, {"path": "a", "lines": 9999}, {"x": 1}):
        with pytest.raises(ValidationError):
            ReadFileArgs.model_validate(bad)
    with pytest.raises(ValidationError):
        GrepArgs(text="")


async def test_the_tools_work(root: Root) -> None:
    tools = {tool.name: tool for tool in make(root)}
    assert set(tools) == {"read_file", "list_files", "grep"}
    assert await tools["read_file"].ainvoke({"path": "notes/größe.txt"}) == "1\tGröße"
