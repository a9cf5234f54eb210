"""The child by itself: a question in, an answer out, and an end in any case."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tunechat.tests.trainer.inquiry.conftest import Write, chat

CHILD = (sys.executable, "-P", "-m", "tunechat.trainer.inquiry")
MEMORY, SECONDS = str(3 << 30), "20"


def asked(question: Any, *bounds: str) -> dict[str, Any]:
    said = question if isinstance(question, bytes) else json.dumps(question).encode()
    done = subprocess.run([*CHILD, *bounds], input=said, capture_output=True, timeout=60, check=True)
    assert done.stderr == b""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_answers_within_bounds_and_with_the_names_of_files(entry: str, write: Write) -> None:
    path = write(chat("a", "b"), "no")
    question = {"ask": "check", "recipe": {"data": path}, "names": {path: "my.jsonl"}, "entry": entry}
    answer = asked(question, MEMORY, SECONDS)
    assert answer["stops"]["message"].startswith("my.jsonl:2: ")
    assert path not in json.dumps(answer)


def test_a_refusal_is_an_answer() -> None:
    error = asked({"ask": "recipe", "recipe": {"learning_rate": 1}})["error"]
    assert (error["http_status"], error["code"], error["param"]) == (400, "invalid_value", "learning_rate")


def test_what_is_no_question_is_refused() -> None:
    for said in (b"", b"\xff", {"ask": "everything"}, b'{"ask":"check","recipe":' + b"[" * 100_000):
        assert asked(said)["error"]["http_status"] == 400


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; import tunechat.trainer.inquiry.checking, tunechat.trainer.inquiry.previewing,"
        "tunechat.trainer.inquiry.recipes; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_dies_with_whoever_has_started_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    code = (
        "import subprocess, sys; child = subprocess.Popen(sys.argv[1:], start_new_session=True);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *CHILD, MEMORY, SECONDS], stdin=reading, stdout=subprocess.PIPE, cwd=tmp_path
    ) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        until = time.monotonic() + 20
        while os.getpriority(os.PRIO_PROCESS, child) <= os.getpriority(os.PRIO_PROCESS, 0):
            assert time.monotonic() < until, "the child never made way for others"
            time.sleep(0.01)
        starter.kill()
    with contextlib.suppress(ProcessLookupError):
        while is_alive(child):
            assert time.monotonic() < until, "the child outlives its starter"
            time.sleep(0.01)
    os.close(reading)
    os.close(writing)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
