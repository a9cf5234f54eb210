"""One server for all tests that leave it whole, and servers of their own for those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tunechat.tests.blackbox.server import Server, load_adapter, refuse_leaks, serving

Start = Callable[..., Server]
Note = Callable[[str, str], None]
FEW = ("loud", "json")  # adapters that every test may use

_FIGURES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = {}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was measured: times say nothing on a busy machine, so they are shown more than they are judged."""
    if config.stash[_FIGURES]:
        terminalreporter.section("measured with a real server")
        for name, value in config.stash[_FIGURES].items():
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Note:
    """Puts a figure into the summary of the run."""
    return pytestconfig.stash[_FIGURES].__setitem__


@pytest.fixture(scope="session")
def server(default_home: Path, tmp_path_factory: pytest.TempPathFactory, note: Note) -> Iterator[Server]:
    """The shared server, with the fastest heartbeat there is."""
    log = tmp_path_factory.mktemp("blackbox") / "server.log"
    with serving(default_home, log, heartbeat_seconds=1) as server:
        note("start to /readyz", f"{server.start_seconds:.2f} s")
        yield server
        assert server.end() == 0
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def golden(server: Server) -> str:
    """What every server must answer to the control request, always."""
    return server.control()


@pytest.fixture
def healthy(server: Server, golden: str) -> Iterator[None]:
    """The shared server is as good after the test as before."""
    yield
    server.check_health(golden)


@pytest.fixture(scope="module")
def healthy_at_end(server: Server, golden: str) -> Iterator[None]:
    """The same, once, after all of a file's tests: for requests that every client sends."""
    yield
    server.check_health(golden)


@pytest.fixture
def start(default_home: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a server of the test's own, a small one, with the given settings."""
    with ExitStack() as stack:

        def begin(*flags: str, **settings: object) -> Server:
            told = {"max_context": 2048, "cache_bytes": "128MiB", **settings}
            return stack.enter_context(serving(default_home, tmp_path / "server.log", *flags, **told))

        yield begin


@pytest.fixture(scope="module")
def adapter_server(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a store of its own that starts empty."""
    folder = tmp_path_factory.mktemp("adapters")
    home = folder / "home"
    home.mkdir()
    (home / "models").symlink_to(default_home / "models")
    log = folder / "server.log"
    with serving(home, log, heartbeat_seconds=1) as server:
        yield server
        server.wait_idle()
        assert server.end() == 0
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def styles(adapter_server: Server, default_home: Path, default_entry: Path) -> dict[str, Path]:
    """Two trained adapters, loaded under their names."""
    from tunechat.tests.adapter_styles import style_adapters

    folders = style_adapters(default_home, default_entry, FEW)
    for name, folder in folders.items():
        assert load_adapter(adapter_server, name, folder) == f"{name}@1"
    return folders


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The official client of the shared server. It does not try again: what fails must be seen."""
    http = openai.DefaultHttpxClient(event_hooks={"response": [refuse_leaks]}, trust_env=False)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=http) as client:
        yield client
