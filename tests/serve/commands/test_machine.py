"""What `doctor` finds on this machine, and on worse ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tunechat.serve.commands import machine
from tunechat.serve.commands.machine import Check, machine_checks
from tunechat.serve.settings import Settings

from .conftest import Done, FakeServer


def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(settings)}


def test_this_machine_is_fit(home: Path) -> None:
    checks = found(Settings(home=home))
    assert [check for check in checks.values() if check.status == "fail"] == []
    assert {"python", "processor", "memory", "home", "disk", "compiler", "packages", "kernels", "cuda"} <= checks.keys()
    assert checks["home"].detail == str(home)


def test_home_that_is_a_file_fails(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    check = machine._home(file / "home")
    assert check.status == "fail"
    assert "TUNECHAT_HOME" in check.detail


def test_missing_compiler_and_avx2_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine._compiler().status == "warn"
    monkeypatch.setattr(machine, "_cpu_flags", lambda: frozenset({"sse2"}))
    assert machine._processor().status == "warn"
    monkeypatch.setattr(machine, "_cpu_flags", lambda: None)
    assert machine._processor().status == "skip"


def test_old_and_missing_packages_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine.metadata, "requires", lambda name: ["rich>=999", "no-such-package-here", "x; extra == 'dev'"]
    )
    check = next(iter(machine._packages()))
    assert check.status == "fail"
    assert f"rich {metadata.version('rich')} is not >=999" in check.detail
    assert "no-such-package-here is missing" in check.detail


def test_command_prints_json_and_fails_when_a_check_does(
    tunechat: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "machine_checks", lambda settings: iter([Check("a", "ok", "fine")]))
    done = tunechat("doctor", "--json")
    assert (done.code, json.loads(done.out)) == (0, [{"name": "a", "status": "ok", "detail": "fine"}])
    monkeypatch.setattr(machine, "machine_checks", lambda settings: iter([Check("a", "fail", "[bold]broken")]))
    done = tunechat("doctor")
    assert done.code == 1
    assert "[bold]broken" in done.out


def test_command_probes_the_server_it_is_given(tunechat: Callable[..., Done], served: FakeServer) -> None:
    done = tunechat("doctor", "--url", "http://127.0.0.1:1/v1", "--json")
    assert done.code == 0, done.out
    assert [check["name"] for check in json.loads(done.out)][:3] == ["models", "chat", "stream"]
    served.ending = ""
    assert tunechat("doctor", "--url", "http://127.0.0.1:1").code == 1
