"""`tunechat train` as it is typed: with a server that runs, and with none, until what was learned answers."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tunechat.tests.blackbox.server import COMMAND, Server, environment, serving, session_members, wait_until
from tunechat.tests.tiny_models import make_tiny

LIMIT = 100
ROWS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a home, and what to learn."""
    folder = tmp_path_factory.mktemp("train")
    make_tiny(folder / "tiny", "llama")
    pairs = [("Who are you?" * (1 + index % 2), "Tiny.") for index in range(ROWS)]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]})
        for asked, told in pairs
    ]
    (folder / "support.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tunechat(folder: Path, *words: str, **settings: object) -> subprocess.Popen[str]:
    """The command in a session of its own, so that all that it leaves behind can be seen."""
    told = environment(folder / "home", model=folder / "tiny", threads=1, **settings)
    return subprocess.Popen(
        [COMMAND, *words],
        env={**told, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def ask(server: Server, model: str) -> str:
    """The version that answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}
    response = server.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["model"])


def test_on_a_private_server_that_pauses_and_goes_on(folder: Path) -> None:
    process = tunechat(folder, "train", "support.jsonl", "--name", "support", "epochs=500", "steps=150", port=1)
    assert process.stdout is not None
    seen = [next(iter(process.stdout.readline, ""))]
    while not seen[-1].startswith("step "):
        seen.append(process.stdout.readline())
        assert seen[-1], process.communicate()
    process.send_signal(signal.SIGTERM)
    code, _, err = done(process)
    job = seen[0].partition(":")[0]
    assert code == 130 and err.splitlines()[-1] == f"{job} is paused; `tunechat train --resume {job}` goes on with it"
    wait_until(lambda: not session_members(process.pid), 10, "nothing is left")

    code, out, _ = done(tunechat(folder, "jobs", "list", "--json", port=1))
    assert code == 0 and [(one["id"], one["status"]) for one in json.loads(out)] == [(job, "paused")]
    code, out, err = done(tunechat(folder, "train", "--resume", job, port=1))
    assert code == 0, (out, err)
    lines = out.splitlines()
    assert lines[0].startswith(f"{job}: goes on after step ") and "step 150/150" in out
    assert lines[-2:] == ["serve it:       tunechat serve", "chat with it:   tunechat run --model support 'Hello!'"]


def test_on_a_running_server(folder: Path) -> None:
    log = folder / "server.log"
    with serving(folder / "home", log, model=folder / "tiny", threads=1, max_context=256) as server:
        words = ("train", "support.jsonl=3", "--name", "support", "--server", server.url)
        told = done(tunechat(folder, *words, "epochs=1", "prompts=Who are you?", "answer_tokens=4"))
        assert told[0] == 0, told
        lines = told[1].splitlines()
        assert any(line.startswith(f"Training {3 * ROWS} rows in ") for line in lines)
        assert any(line.startswith("step ") and " loss " in line for line in lines)
        assert any("answer to 'Who are you?'" in line for line in lines)
        assert lines[-1] == f"chat with it:   tunechat run --model support --url {server.url} 'Who are you?'"
        model = lines[-2].partition("(")[2].rstrip(")")
        assert model.startswith("ft:tiny:support:")
        version = ask(server, "support")
        assert version.startswith("support@") and ask(server, model) == version

        good = (folder / "support.jsonl").read_text()
        (folder / "bad.jsonl").write_text(f'{good}{{"messages": 1}}\n')
        (folder / "long.jsonl").write_text(good.replace("Tiny.", "Tiny. " * 20, 1))
        for words, place in (
            (("bad.jsonl",), f"bad.jsonl:{ROWS + 1}: "),
            (("support.jsonl", "long.jsonl=2", "max_length=100"), "long.jsonl:1: "),
        ):
            code, _, err = done(tunechat(folder, "train", *words, "--server", server.url))
            assert code == 1 and place in err and len(err.splitlines()) == 1, err
        assert server.end() == 0
    assert "Traceback" not in log.read_text()
