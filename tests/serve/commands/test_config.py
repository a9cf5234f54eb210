"""`tunechat config`: values, origins, and the reference that the documentation carries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunechat.serve.settings import Settings

from .conftest import Done

Tunechat = Callable[..., Done]


def test_shows_every_setting(tunechat: Tunechat) -> None:
    done = tunechat("config", "show", "--json")
    assert done.code == 0
    assert json.loads(done.out).keys() == Settings.model_fields.keys()


def test_origin_names_the_layer(tunechat: Tunechat, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "config.toml").write_text('max_context = "4K"\n')
    monkeypatch.setenv("TUNECHAT_PORT", "9001")
    shown = json.loads(tunechat("config", "show", "--origin", "--json").out)
    assert shown["max_context"] == {"value": 4096, "origin": f"file {home / 'config.toml'}"}
    assert shown["port"] == {"value": 9001, "origin": "environment TUNECHAT_PORT"}
    assert shown["threads"]["origin"] == "default"
    table = tunechat("config", "show", "--origin").out
    assert "environment TUNECHAT_PORT" in table
    assert "environment" not in tunechat("config", "show").out


@pytest.mark.parametrize("variable", ["TUNECHAT_API_KEYS", "TUNECHAT_ADMIN_KEYS"])
def test_keys_are_counted_and_never_shown(tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "first-secret,second-secret")
    for arguments in (("show",), ("show", "--json"), ("show", "--origin"), ("schema",), ("docs",)):
        done = tunechat("config", *arguments)
        assert done.code == 0
        assert "-secret" not in done.out + done.err
    assert "2 hidden" in tunechat("config", "show").out


def test_path_is_where_the_file_is_looked_for(tunechat: Tunechat, home: Path) -> None:
    assert tunechat("config", "path").out == f"{home / 'config.toml'}\n"


def test_schema_describes_every_key(tunechat: Tunechat) -> None:
    schema = json.loads(tunechat("config", "schema").out)
    assert schema["properties"].keys() == Settings.model_fields.keys()
    assert schema["additionalProperties"] is False


def test_wrong_setting_is_one_line_and_exit_code_2(tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_PROT", "1")
    assert tunechat("config", "show") == Done(
        2, "", "error: unknown environment variable TUNECHAT_PROT; did you mean TUNECHAT_PORT?\n"
    )
