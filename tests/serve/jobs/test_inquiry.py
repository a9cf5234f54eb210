"""Children that answer, and children and files that do everything else."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidRequest, NotFound, Overloaded, TunechatError, Unavailable
from tunechat.serve.contract.inquiry import AskCheck, AskRecipe, AskRecipes, Checked, CompleteRecipe, Previewed
from tunechat.serve.jobs.inquiry import Inquiries, Limits

ANSWER = json.dumps({"answer": "recipe", "recipe": {"asked": 1}, "open": []})
SAY = f"import sys; sys.stdin.read(); print('''{ANSWER}''')"
TIGHT = Limits(memory=1 << 30, seconds=3, in_all=30.0)


def inquiries(code: str, *more: str, **options: Any) -> Inquiries:
    """Inquiries of a child that runs `code`."""
    return Inquiries((sys.executable, "-I", "-S", "-c", code, *more), **options)


async def ask(asking: Inquiries, limits: Limits = TIGHT) -> CompleteRecipe:
    return await asking.ask(AskRecipe(), CompleteRecipe, limits)


async def until(is_so: Callable[[], bool]) -> None:
    """Waits until it is so, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it is not so yet"
        await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether no process has this id, or only a dead one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def started(folder: Path) -> int:
    """How many children have left a file."""
    return len(list(folder.glob("ran-*")))


def grandchild(place: Path) -> int:
    """The process that is named in the file, 0 before it is."""
    text = place.read_text() if place.exists() else ""
    return int(text) if text.endswith("\n") else 0


async def test_the_child_is_asked_and_its_bounds_are_told(tmp_path: Path) -> None:
    code = f"""
import json, os, sys
asked = json.load(sys.stdin)
open({str(tmp_path / "seen")!r}, "w").write(json.dumps([asked, sys.argv[1:], os.getcwd(), dict(os.environ)]))
print('''{ANSWER}''')
"""
    os.environ["TUNECHAT_SECRET"] = "key"
    try:
        answer = await ask(inquiries(code))
    finally:
        del os.environ["TUNECHAT_SECRET"]
    assert answer.recipe == {"asked": 1}
    asked, bounds, folder, environment = json.loads((tmp_path / "seen").read_text())
    assert asked["ask"] == "recipe" and bounds == [str(1 << 30), "3"]
    assert environment["TMPDIR"] == folder and not os.path.exists(folder)  # noqa: ASYNC240
    assert "TUNECHAT_SECRET" not in environment


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("import os; os.abort()", InvalidRequest, "died"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", InvalidRequest, "more than"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", InvalidRequest, "more than"),
        ("import sys; sys.stderr.write('x' * 10**6 + ' MemoryError'); sys.exit(1)", InvalidRequest, "died"),
        ("raise SystemExit(3)", TunechatError, "log"),
        ("print('no answer')", TunechatError, "no answer"),
        ("print('{}')", TunechatError, "no answer"),
        ("while True: print('x' * 10**6)", TunechatError, "more than 16 MiB"),
        ("import sys; sys.stdin.read(); print('''{\"answer\": \"preview\", \"samples\": [], \"format\": null, "
         "\"more\": false}''')", TunechatError, "another"),
    ],
)  # fmt: skip
async def test_a_child_that_gives_no_answer_is_an_error(code: str, kind: type[TunechatError], words: str) -> None:
    with pytest.raises(kind, match=words):
        await ask(inquiries(code))


async def test_refusals_keep_their_kind() -> None:
    error = {"code": "not_found", "message": "no", "http_status": 404, "param": "name"}
    code = f"print('''{json.dumps({'answer': 'refused', 'error': error})}''')"
    with pytest.raises(NotFound) as caught:
        await ask(inquiries(code))
    assert (caught.value.message, caught.value.param) == ("no", "name")


async def test_a_child_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await Inquiries((str(tmp_path / "nothing"),)).ask(AskRecipes(), Previewed)


FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{child.pid}\\n")
time.sleep(600)
"""


async def test_a_child_is_killed_with_all_of_its_group_when_its_asker_leaves(tmp_path: Path) -> None:
    asking = asyncio.create_task(ask(inquiries(FAMILY, str(tmp_path / "pid"))))
    await until(lambda: bool(grandchild(tmp_path / "pid")))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: is_gone(grandchild(tmp_path / "pid")))


async def test_a_child_that_takes_too_long_is_killed_with_all_of_its_group(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="more than") as caught:
        await ask(inquiries(FAMILY, str(tmp_path / "pid")), Limits(in_all=1.0))
    assert caught.value.code == "too_costly"
    await until(lambda: is_gone(grandchild(tmp_path / "pid")))


async def test_two_are_asked_at_once_and_few_wait(tmp_path: Path) -> None:
    place = tmp_path / "gate"
    code = f"""
import os, time
open(os.path.join({str(tmp_path)!r}, f"ran-{{os.getpid()}}"), "w")
while not os.path.exists({str(place)!r}): time.sleep(0.01)
print('''{ANSWER}''')
"""
    asking = inquiries(code, at_once=2, waiting=1)
    running = [asyncio.create_task(ask(asking)) for _ in range(3)]
    await until(lambda: started(tmp_path) == 2)
    with pytest.raises(Overloaded) as caught:
        await ask(asking)
    assert caught.value.retry_after
    patient = asyncio.create_task(asking.ask(AskRecipe(), CompleteRecipe, patient=True))
    # One that waits and leaves makes room for another.
    running.pop().cancel()
    await asyncio.sleep(0)
    assert started(tmp_path) == 2
    place.touch()
    assert len(await asyncio.gather(*running, patient)) == 3


def sheet_bomb(path: Path) -> None:
    """A quarter of a megabyte that unpacks to more than is read."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("xl/sharedStrings.xml", "w") as part:
            for _ in range(257):
                part.write(bytes(1 << 20))


async def test_hostile_files_are_told_by_their_lines_and_stop_nothing(tmp_path: Path) -> None:
    """One child reads them all; what is good in them is read."""
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    files = {
        "bom.jsonl": b"\xef\xbb\xbf" + good.encode() + b"\r\n" + good.encode() + b"\r\n",
        "nul.jsonl": good.encode() + b'\n{"messages": "\x00"}\n\x00\x00\n' + good.encode() + b"\n",
        "deep.jsonl": (good + "\n").encode() * 2 + b"[" * 1_000_000 + b"\n" + b'{"a":' * 1_000_000 + b"\n",
        "utf16.jsonl": good.encode("utf-16"),
        "latin.jsonl": (good + "\n").encode() * 2 + b'{"messages": "\xe9"}\n',
        "half.jsonl": (good + "\n").encode() * 2 + b'{"messages": "\\ud800"}\n',
        "roles.jsonl": (good + "\n").encode() * 2 + good.replace("assistant", "king").encode(),
        "sheet.xlsx": b"PK\x03\x04 no zip",
        "table.parquet": b"PAR1" + b"\xff" * 100 + b"PAR1",
        "packed.jsonl.gz": gzip.compress(b" " * (64 << 20), 1),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "line.jsonl").open("wb") as line:
        line.write((good + "\n").encode())
        line.seek(1 << 28)
        line.write(("\n" + good).encode())
    sheet_bomb(tmp_path / "bomb.xlsx")
    names = {str(tmp_path / name): name for name in (*files, "line.jsonl", "bomb.xlsx")}
    checked = await Inquiries().ask(AskCheck(recipe={"data": list(names)}, names=names), Checked)
    found = {
        (one["file"], one["line"], one["kind"]) for one in checked.report["problems"] if one["severity"] == "error"
    }
    assert found >= {
        ("nul.jsonl", 2, "json"),
        ("nul.jsonl", 3, "json"),
        ("deep.jsonl", 3, "json"),
        ("deep.jsonl", 4, "json"),
        ("utf16.jsonl", 1, "encoding"),
        ("latin.jsonl", 3, "encoding"),
        ("half.jsonl", 3, "json"),
        ("roles.jsonl", 3, "role"),
        ("sheet.xlsx", None, "file"),
        ("bomb.xlsx", None, "size"),
        ("table.parquet", None, "file"),
        ("packed.jsonl.gz", 1, "size"),
        ("line.jsonl", 2, "size"),
    }
    assert {file for file, _, _ in found} == set(names.values()) - {"bom.jsonl"}
    samples = {one["file"]: one["samples"] for one in checked.report["files"]}
    assert (samples["bom.jsonl"], samples["line.jsonl"], samples["nul.jsonl"]) == (2, 2, 2)


async def test_a_file_without_end_costs_no_more_than_is_given(tmp_path: Path) -> None:
    """Five million rows in some kilobytes."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.DictionaryArray.from_arrays(np.zeros(5_000_000, dtype=np.int8), ["x" * 100])
    parquet.write_table(pa.table({"text": rows}), tmp_path / "rows.parquet", row_group_size=5_000_000)
    assert (tmp_path / "rows.parquet").stat().st_size < 1 << 20
    question = AskCheck(recipe={"data": [str(tmp_path / "rows.parquet")]})
    with pytest.raises(InvalidRequest) as caught:
        await Inquiries().ask(question, Checked, Limits(memory=3 << 30, seconds=1))
    assert caught.value.code == "too_costly"


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """A record that fits and is nearly too long takes more than the memory that is given here."""
    record = '{"messages": [' + "[]," * 5_000_000 + "[]]}\n"
    (tmp_path / "a.jsonl").write_text(record)
    question = AskCheck(recipe={"data": [str(tmp_path / "a.jsonl")]})
    with pytest.raises(InvalidRequest) as caught:
        await Inquiries().ask(question, Checked, Limits(memory=300 << 20, seconds=20))
    assert caught.value.code in ("too_costly", "unreadable")
