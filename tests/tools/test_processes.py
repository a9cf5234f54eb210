"""Real children that try to get out, to stay, or to take too much."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tunechat.tools.builtin.python import make, run_python
from tunechat.tools.errors import ToolFailed
from tunechat.tools.processes import Confinement, Finished, run_confined, start, to_the_end

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and Landlock are Linux's")


async def python(code: str, *, seconds: float = 20.0, **limits: int) -> Finished:
    return await run_confined(
        [sys.executable, "-I", "-"], stdin=code.encode(), limits=Confinement(seconds=seconds, **limits)
    )


def alive(mark: str) -> list[int]:
    """Processes whose command line or name holds `mark`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            mark in word for word in process.info["cmdline"] or ()
        ):
            found.append(process.pid)
    return found


async def gone(mark: str) -> None:
    """Returns when no process with `mark` is left; fails after some seconds."""
    until = time.monotonic() + 10
    while alive(mark):
        assert time.monotonic() < until, "a process outlived its call"
        await asyncio.sleep(0.02)


async def test_runs_and_tells_how_it_ended() -> None:
    assert await python("print(6 * 7)") == Finished(0, "42\n", False, False)
    assert (await python("import sys; sys.exit(3)")).code == 3
    done = await python("import os, signal; print('x', flush=True); os.abort()")
    assert done.code >= 128 and done.output.startswith("x")


async def test_starts_with_nothing() -> None:
    done = await python("import os, sys; print(sorted(os.environ), os.listdir('.'), sys.stdin.read())")
    assert "PATH" in done.output and "TUNECHAT" not in done.output and done.output.strip().endswith("[]")


async def test_a_program_that_cannot_run_says_so() -> None:
    done = await run_confined(["/nonexistent/program"])
    assert done.code == 126 and "cannot be run" in done.output


@LINUX
@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "import os; os.listdir('/')",
        "import os; os.listdir('/proc')",
        "open('/proc/1/environ')",
        "open('{canary}', 'w')",
        "open('{canary}')",
        "import os; os.symlink('{canary}', 'link'); open('link')",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import socket; socket.create_connection(('::1', {port}), 2)",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', {port}))",
        "import ctypes; l = ctypes.CDLL(None); assert l.mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0",
        "x = bytearray(4 << 30)",
        "open('big', 'wb').write(bytes(65 << 20))",
    ],
)
async def test_what_it_may_not_do(code: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    visitors: list[str] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append("came")
        writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        done = await python(code.replace("{canary}", str(canary)).replace("{port}", str(port)) + "\nprint('done it')")
    assert "done it" not in done.output and done.code != 0
    assert canary.read_text() == "untouched" and visitors == []


async def test_the_deadline_holds_against_a_program_that_ignores_signals() -> None:
    mark = "tunechat-stubborn-1"
    code = (
        "import signal, subprocess, sys\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'], start_new_session=True)\n"
        "print('waits', flush=True)\n"
        "while True: pass"
    )
    done = await python(code, seconds=2)
    assert done.timed_out and done.output == "waits\n"
    await gone(mark)


@LINUX
async def test_a_grandchild_that_left_the_group_ends_with_the_program() -> None:
    mark = "tunechat-orphan-2"
    code = (
        "import ctypes, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'], start_new_session=True,\n"
        "    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    assert (await python(code)).code == 0
    await gone(mark)


async def test_cancelling_ends_everything() -> None:
    mark = "tunechat-cancelled-3"
    task = asyncio.create_task(
        run_confined([sys.executable, "-I", "-c", "import time; print(1, flush=True); time.sleep(60)", mark])
    )
    until = time.monotonic() + 20
    while not alive(mark):
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(mark)


async def test_a_flood_of_output_is_cut_and_ends_it() -> None:
    done = await python("while True: print('x' * 1000)", output=10_000)
    assert done.truncated and len(done.output) == 10_000


@LINUX
async def test_a_fork_bomb_ends() -> None:
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    done = await python(code, seconds=1, processes=32)
    assert done.timed_out


async def test_the_python_tool_tells_what_happened() -> None:
    short = Confinement(seconds=1.0, output=100)
    assert await run_python("pass") == "[no output]"
    assert await run_python("print('x' * 500)", short) == "x" * 100 + "\n[stopped after 100 bytes of output]"
    assert await run_python("while True: pass", short) == "[stopped after 1 seconds]"
    assert "ZeroDivisionError" in (told := await run_python("1/0")) and told.endswith("[ended with status 1]")
    assert await make().ainvoke({"code": "print(1)"}) == "1"


async def test_a_process_that_cannot_be_started_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(ToolFailed, match="cannot be started"):
        await run_confined(["/bin/true"])


async def test_a_child_that_starts_while_its_caller_is_cancelled_is_ended() -> None:
    for pauses in range(6):
        ended: list[int] = []

        async def end(process: asyncio.subprocess.Process, ended: list[int] = ended) -> None:
            process.kill()
            ended.append(await process.wait())

        starting = asyncio.create_task(start(end, sys.executable, "-c", "import time; time.sleep(60)"))
        for _ in range(pauses):
            await asyncio.sleep(0)
        for _ in range(2):
            starting.cancel()
            await asyncio.sleep(0)
        [result] = await asyncio.gather(starting, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
        assert ended == ([-signal.SIGKILL] if pauses else [])


def test_work_is_done_to_the_end_while_the_loop_shuts_down() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("work")

    async def abandons_it() -> None:
        asyncio.get_running_loop().create_task(to_the_end(work)).add_done_callback(lambda _: done.append("told"))
        await asyncio.sleep(0)

    asyncio.run(abandons_it())
    assert done == ["work", "told"]
