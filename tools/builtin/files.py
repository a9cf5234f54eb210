"""`read_file`, `list_files` and `grep`: the files below one folder, to read only."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import ToolFailed
from ..paths import MAX_PATH, Root, clean_path

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

MAX_SCAN = 16 << 20  # bytes of one file that are looked at
MAX_LINE = 2000  # characters of one line that are shown
MAX_ENTRIES = 500
MAX_TOTAL = 64 << 20  # bytes that one grep reads

RelativePath = Annotated[str, Field(max_length=MAX_PATH), AfterValidator(clean_path)]
Glob = Annotated[str, Field(max_length=200)]


class ReadFileArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Annotated[RelativePath, Field(min_length=1, description="Path of the file, such as notes/plan.md.")]
    start: Annotated[int, Field(ge=1, le=10_000_000, description="Number of the first line.")] = 1
    lines: Annotated[int, Field(ge=1, le=2000, description="How many lines.")] = 200


class ListFilesArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Annotated[RelativePath, Field(description="Folder to list; empty is the topmost.")] = ""
    pattern: Annotated[Glob, Field(description="Only names like this, such as *.md, in all folders below.")] = ""


class GrepArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=200, description="Words to find, as they are written.")]
    path: Annotated[RelativePath, Field(description="Folder to look in; empty is the topmost.")] = ""
    pattern: Annotated[Glob, Field(description="Only files with names like this, such as *.py.")] = ""
    ignore_case: Annotated[bool, Field(description="Whether a and A are the same.")] = True


def read_file(root: Root, path: str, start: int = 1, lines: int = 200) -> str:
    """The lines asked for, numbered, and a last line that tells what is left. Raises ToolFailed for binary files."""
    data = root.read(path, MAX_SCAN + 1)
    if b"\0" in data[:8192]:
        raise ToolFailed(f"{path!r} is no text")
    text = data[:MAX_SCAN].decode("utf-8", "replace").splitlines()
    if start > max(1, len(text)):
        raise ToolFailed(f"{path!r} has {len(text)} lines", param="start")
    shown = text[start - 1 : start - 1 + lines]
    told = [f"{number}\t{_short(line)}" for number, line in enumerate(shown, start)]
    left = len(text) - (start - 1 + len(shown))
    if left or len(data) > MAX_SCAN:
        told.append(f"[{left}{'+' if len(data) > MAX_SCAN else ''} more lines; go on with start={start + len(shown)}]")
    return "\n".join(told) or "[the file is empty]"


def list_files(root: Root, path: str = "", pattern: str = "") -> str:
    """One line an entry: folders end with `/`, files tell their size in bytes."""
    if pattern:
        entries = [entry for entry in root.walked(path) if fnmatchcase(entry.path.rpartition("/")[2], pattern)]
    else:
        entries = root.listed(path, MAX_ENTRIES + 1)
    lines = [f"{entry.path}/" if entry.is_folder else f"{entry.path}\t{entry.size}" for entry in entries[:MAX_ENTRIES]]
    if len(entries) > MAX_ENTRIES:
        lines.append(f"[more than {MAX_ENTRIES} entries]")
    return "\n".join(lines) or "[nothing]"


def grep(root: Root, text: str, path: str = "", pattern: str = "", ignore_case: bool = True) -> str:
    """Lines that hold `text`, as `path:number:line`. It is compared as it is, so no text makes this slow."""
    wanted = text.casefold() if ignore_case else text
    hits: list[str] = []
    read = 0
    for entry in root.walked(path):
        if pattern and not fnmatchcase(entry.path.rpartition("/")[2], pattern):
            continue
        if read >= MAX_TOTAL:
            hits.append(f"[stopped after {MAX_TOTAL >> 20} MiB]")
            break
        try:
            data = root.read(entry.path, MAX_SCAN)
        except ToolFailed:
            continue  # gone or not ours to read
        read += len(data)
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if wanted in (line.casefold() if ignore_case else line):
                hits.append(f"{entry.path}:{number}:{_short(line)}")
                if len(hits) >= MAX_ENTRIES:
                    return "\n".join([*hits, f"[stopped after {MAX_ENTRIES} lines]"])
    return "\n".join(hits) or "[nothing found]"


def _short(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}[...]"


def make(root: Root) -> list[BaseTool]:
    """The three tools for this folder."""
    from langchain_core.tools import StructuredTool

    return [
        StructuredTool.from_function(
            partial(read_file, root),
            name="read_file",
            description="Read lines of a text file of the user.",
            args_schema=ReadFileArgs,
        ),
        StructuredTool.from_function(
            partial(list_files, root),
            name="list_files",
            description="List the files of the user: one folder, or all files with a name like a pattern.",
            args_schema=ListFilesArgs,
        ),
        StructuredTool.from_function(
            partial(grep, root),
            name="grep",
            description="Find the lines of the user's files that contain some text.",
            args_schema=GrepArgs,
        ),
    ]
