"""`tunechat adapters` without a server: everything that can be done with the store in the home folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.adapters.quarantine import Quarantine, Quarantined
from tunechat.serve.contract.errors import ErrorRecord

from .adapter_home import Workshop, prepared
from .conftest import Done

Tunechat = Callable[..., Done]
Ask = Callable[..., Any]


@pytest.fixture
def base(workshop: Workshop, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared base, which is the model of the settings; nothing listens where a server would be."""
    folder = workshop.base()
    prepared(folder, home)
    monkeypatch.setenv("TUNECHAT_MODEL", str(folder))
    monkeypatch.setenv("TUNECHAT_PORT", "1")
    return folder


@pytest.fixture
def ask(tunechat: Tunechat) -> Ask:
    """The JSON that `tunechat adapters ARGUMENTS` prints."""

    def call(*arguments: str) -> Any:
        done = tunechat("adapters", *arguments, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return call


def test_nothing_yet_says_how_to_begin(tunechat: Tunechat, home: Path, ask: Ask, base: Path) -> None:
    assert ask("list") == {"object": "list", "data": [], "quarantined": []}
    done = tunechat("adapters", "list")
    assert (done.code, done.out) == (0, "") and "tunechat adapters load" in done.err


def test_without_server_and_home_says_so(tunechat: Tunechat, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_PORT", "1")
    done = tunechat("adapters", "list")
    assert done.code == 2 and "no home folder" in done.err


def test_the_life_of_an_adapter(tunechat: Tunechat, workshop: Workshop, base: Path, ask: Ask) -> None:
    one, two = (str(workshop.adapter(base, seed=seed)) for seed in (1, 2))
    first = ask("load", one, "--name", "support")
    assert (first["id"], first["is_current"], first["state"], first["residency"]) == (
        "support@1",
        True,
        "stored",
        "disk",
    )
    assert ask("load", one, "--name", "support")["id"] == "support@1"
    second = ask("load", two, "--name", "support", "--no-activate")
    assert (second["id"], second["is_current"]) == ("support@2", False)
    assert ask("activate", "support@2")["is_current"]
    assert ask("rollback", "support")["id"] == "support@1"
    assert ask("pin", "support@2")["is_pinned"]
    assert "is pinned" in tunechat("adapters", "remove", "support@2").err
    assert not ask("unpin", "support@2")["is_pinned"]
    shown = ask("show", "support")
    assert (shown["current"], [version["number"] for version in shown["versions"]]) == (1, [1, 2])
    assert ask("show", "support@2")["digest"] == second["digest"]
    assert ask("verify", "support")["verified"] is True
    assert ask("remove", "support@2")["removed"] == ["support@2"]
    assert ask("remove", "support")["removed"] == ["support@1"]
    assert ask("list")["data"] == []


def test_tables_show_what_matters(tunechat: Tunechat, workshop: Workshop, base: Path, home: Path, ask: Ask) -> None:
    for seed in (1, 2, 3):
        ask("load", str(workshop.adapter(base, seed=seed, use_dora=True)), "--name", "support")
    error = ErrorRecord(code="invalid_adapter", message="it holds NaN", http_status=422)
    Quarantine(home / "adapters").put(Quarantined(name="bad [red]", error=error, since=1_700_000_000))
    listed = tunechat("adapters", "list").out
    for text in ("support@3", "1-3", "dora", "q_proj v_proj", "KiB", "cannot be checked", "bad [red]", "it holds NaN"):
        assert text in listed
    assert "2023-11-14" in listed
    shown = tunechat("adapters", "show", "support").out
    assert "support@2" in shown and "stored" in shown
    version = tunechat("adapters", "show", "support@2").out
    digest = ask("show", "support@2")["digest"]
    for text in (digest, "dora", "adapter_model.safetensors", "warning", "q_proj, v_proj"):
        assert text in version
    assert ask("list")["quarantined"][0]["code"] == "invalid_adapter"


def test_loading_says_the_version_and_warns_on_stderr(tunechat: Tunechat, workshop: Workshop, base: Path) -> None:
    done = tunechat("adapters", "load", str(workshop.adapter(base)), "--name", "support")
    assert (done.code, done.out) == (0, "support@1 (current, stored)\n")
    assert done.err.startswith("warning: which model it was trained on cannot be checked")


def test_name_of_the_folder_is_the_default(tunechat: Tunechat, workshop: Workshop, base: Path) -> None:
    folder = workshop.adapter(base)
    assert tunechat("adapters", "load", str(folder)).out.startswith(f"{folder.name}@1 ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "nobody"), "there is no adapter nobody"),
        (("show", "../models"), "is no adapter name"),
        (("show", "support@x"), "is no version number"),
        (("rollback", "nobody"), "there is no adapter nobody"),
        (("activate", "nobody"), "name the version"),
        (("unload", "nobody"), "no server runs at http://127.0.0.1:1"),
        (("verify", "nobody"), "there is no adapter"),
        (("remove", "nobody"), "there is no adapter"),
        (("export", "nobody", "x"), "there is no adapter"),
        (("merge", "nobody", "x"), "there is no adapter"),
        (("load", "no/such/folder", "--name", "support"), "there is no no/such/folder"),
        (("load", ".", "--name", "a/b"), "is no adapter name"),
    ],
)
def test_every_error_is_one_line(tunechat: Tunechat, base: Path, arguments: tuple[str, ...], said: str) -> None:
    done = tunechat("adapters", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ") and said in done.err and done.err.count("\n") == 1


def test_adapter_of_another_architecture_is_refused(tunechat: Tunechat, workshop: Workshop, base: Path) -> None:
    other = workshop.adapter(workshop.base("phi"), targets="dense")
    done = tunechat("adapters", "load", str(other), "--name", "other")
    assert done.code == 1 and "the base has no linear module" in done.err


def test_unprepared_base_is_named(tunechat: Tunechat, workshop: Workshop, base: Path) -> None:
    done = tunechat("adapters", "load", str(workshop.adapter(base)), "--name", "x", "--model", "org/other")
    assert done.code == 1 and "`tunechat pull org/other`" in done.err


def test_changed_files_do_not_verify(tunechat: Tunechat, workshop: Workshop, base: Path, home: Path, ask: Ask) -> None:
    ask("load", str(workshop.adapter(base)), "--name", "support")
    weights = home / "adapters" / "support" / "1" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    for command in (
        ("verify", "support"),
        ("export", "support", str(home / "x")),
        ("merge", "support", str(home / "y")),
    ):
        done = tunechat("adapters", *command)
        assert done.code == 1 and "adapter_model.safetensors of support@1 was changed" in done.err
    assert not (home / "x").exists() and not (home / "y").exists()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tunechat.serve.commands import adapters\n"
        "print(sorted({'torch', 'numpy', 'httpx', 'safetensors', 'transformers', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() in {"[]", "['msgspec']"}
