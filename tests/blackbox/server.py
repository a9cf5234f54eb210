"""A real `tunechat serve` in a process of its own, and what every test asks of it afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

MODEL = "smollm2-135m-instruct"
COMMAND = str(Path(sys.executable).with_name("tunechat"))
# Small prompts and few tokens: a machine that runs tests has two cores and other things to do.
CONTROL: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Name three colours."}],
    "temperature": 0,
    "max_tokens": 16,
}
START_SECONDS = 90
# What would tell a stranger about the insides: files, addresses, exception classes.
LEAKS = re.compile(
    rb"/(?:usr|home|root|tmp|work|var|opt)/|\.py\b|0x[0-9a-f]{6,}|Traceback|\b[A-Z][a-z]\w+(?:Error|Exception)\b"
)


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's variables with tunechat's own replaced by `home` and `settings`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TUNECHAT_")}
    told = {f"TUNECHAT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**clean, "TUNECHAT_HOME": str(home), "TUNECHAT_PORT": "0", **told}


def wait_until(condition: Callable[[], bool], limit: float, what: str, pause: float = 0.02) -> float:
    """Seconds until `condition` held. Fails after `limit`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit, f"not within {limit} s: {what}"
        time.sleep(pause)
    return time.monotonic() - began


def refuse_leaks(response: Any) -> None:
    """A hook for HTTP clients: no JSON answer may tell of the insides."""
    if response.headers.get("content-type", "").startswith("application/json") and response.status_code >= 400:
        assert not LEAKS.search(response.read()), response.content


def session_members(session: int) -> list[psutil.Process]:
    """The processes that still run in a session, zombies left out."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


@dataclass
class Server:
    """A server that is ready. Its log, the engine's included, is the file `log`."""

    popen: subprocess.Popen[bytes]
    log: Path
    url: str
    key: str | None
    start_seconds: float
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.http = httpx.Client(
            base_url=self.url, headers=headers, timeout=60, event_hooks={"response": [refuse_leaks]}, trust_env=False
        )

    @property
    def address(self) -> tuple[str, int]:
        parts = httpx.URL(self.url)
        assert parts.port is not None
        return parts.host, parts.port

    @property
    def gateway(self) -> psutil.Process:
        return psutil.Process(self.popen.pid)

    @property
    def engine(self) -> psutil.Process:
        """The engine's process. Fails unless there is exactly one."""
        (engine,) = (child for child in self.gateway.children() if "tunechat.serve.engine" in child.cmdline())
        return engine

    @property
    def is_ready(self) -> bool:
        return self.http.get("/readyz").status_code == 200

    @property
    def clients(self) -> list[Any]:
        """The gateway's open connections."""
        return [one for one in self.gateway.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its full name, labels included."""
        lines = self.http.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def is_idle(self) -> bool:
        metrics = self.metrics()
        return not any(metrics[f"tunechat_engine_{name}"] for name in ("blocks_used", "running", "waiting"))

    def wait_idle(self, limit: float = 5) -> float:
        """Seconds until no sequence is there and none holds blocks."""
        return wait_until(self.is_idle, limit, "an idle engine")

    def control(self) -> str:
        """The greedy answer that must always be the same."""
        response = self.http.post("/v1/chat/completions", json=CONTROL)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    def check_health(self, golden: str) -> None:
        """What must hold after anything: ready within 5 s, idle, and the same answer as ever."""
        wait_until(lambda: self.is_ready, 5, "/readyz is 200")
        self.wait_idle()
        assert self.control() == golden
        self.wait_idle()

    def end(self, limit: float = 30) -> int:
        """The exit status after SIGTERM. No process may be left."""
        self.popen.send_signal(signal.SIGTERM)
        status = self.popen.wait(limit)
        wait_until(lambda: not session_members(self.popen.pid), 5, "no process is left")
        return status


@contextlib.contextmanager
def serving(home: Path, log: Path, *flags: str, key: str | None = None, **settings: object) -> Iterator[Server]:
    """A ready server on a free port, killed with all its children at the end if it still runs."""
    if key is not None:
        settings["api_keys"] = key
    began = time.monotonic()
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [COMMAND, "serve", *flags],
            env=environment(home, **settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        found: re.Match[str] | None = None

        def is_said() -> bool:
            nonlocal found
            assert popen.poll() is None, log.read_text()
            found = re.search(r"^Ready: .* at (http://\S+)/v1 ", log.read_text(), re.MULTILINE)
            return found is not None

        wait_until(is_said, START_SECONDS, "the ready line")
        assert found is not None
        server = Server(popen, log, found[1], key, time.monotonic() - began)
        with server.http:
            yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def load_adapter(server: Server, name: str, folder: Path, **options: bool) -> str:
    """The version that the folder became."""
    response = server.http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder), **options})
    assert response.status_code == 200, response.text
    return response.headers["x-tunechat-adapter"]
