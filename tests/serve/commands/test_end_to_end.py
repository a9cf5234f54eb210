"""The commands against a real server with the default model, which is fetched first."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Place:
    """A home of its own and a server in it."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TUNECHAT_")}
        return {**clean, "TUNECHAT_HOME": str(self.home), "TUNECHAT_PORT": str(self.port)}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from tunechat.serve.cli import main; main()", *arguments]

    def run(self, *arguments: str, code: int = 0, **changes: str) -> str:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            env={**self.environment, **changes},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place = Place(tmp_path_factory.mktemp("home"), port)
    place.run("pull")
    server = subprocess.Popen(
        place.command("serve"), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=place.environment
    )
    try:
        assert server.stderr is not None
        assert any(line.startswith("Ready: ") for line in server.stderr)
        yield place
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
        assert server.returncode == 0
    finally:
        server.kill()
        server.communicate()


def test_pull_leaves_one_model(place: Place) -> None:
    (model,) = json.loads(place.run("models", "--json"))
    assert (model["name"], model["quant"]) == ("smollm2-135m-instruct", "int4")


def test_every_probe_passes(place: Place) -> None:
    checks = json.loads(place.run("doctor", "--url", f"http://127.0.0.1:{place.port}", "--json"))
    assert {check["status"] for check in checks} <= {"ok", "skip"}


def test_ps_names_the_model(place: Place) -> None:
    status = json.loads(place.run("ps", "--json", "--interval", "0.2"))
    assert status["state"] == "ready"
    assert status["models"][0]["id"] == "smollm2-135m-instruct"
    assert status["memory_bytes"] > 0


@pytest.mark.parametrize("sampling", [("--temperature", "0"), ("--seed", "5")])
def test_server_and_own_engine_give_the_same_answer(place: Place, sampling: tuple[str, ...]) -> None:
    ask = ("run", "--json", "--max-tokens", "24", *sampling, "Name three colours.")
    served, own = (json.loads(text) for text in (place.run(*ask), place.run(*ask, TUNECHAT_PORT="1")))
    assert (served["source"], own["source"]) == (f"http://127.0.0.1:{place.port}", "engine")
    for field in ("text", "model", "finish_reason", "system_fingerprint"):
        assert served[field] == own[field]


def test_wrong_device_is_one_error_and_no_server(place: Place) -> None:
    place.run("serve", "--device", "cuda", code=2, TUNECHAT_PORT="0", CUDA_VISIBLE_DEVICES="")
