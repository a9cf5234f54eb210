"""Layers, bounds and messages of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tunechat.serve.settings import Settings, SettingsError, config_path, load


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def environ(home: Path, **variables: str) -> dict[str, str]:
    return {"TUNECHAT_HOME": str(home), **{f"TUNECHAT_{name.upper()}": value for name, value in variables.items()}}


def write_config(home: Path, text: str) -> Path:
    home.mkdir(exist_ok=True)
    path = home / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def failure(flags: dict[str, object] | None = None, env: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags, env or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_each_layer_covers_the_one_before(home: Path) -> None:
    path = write_config(home, 'port = 1001\nhost = "::1"\nthreads = 3')
    loaded = load({"port": "1003", "host": None}, environ(home, port="1002", threads="4"))
    assert (loaded.settings.port, loaded.settings.host, loaded.settings.threads) == (1003, "::1", 4)
    assert loaded.settings.max_running == 64
    assert {name: loaded.origins[name] for name in ("port", "host", "threads", "max_running", "home")} == {
        "port": "flag --port",
        "host": f"file {path}",
        "threads": "environment TUNECHAT_THREADS",
        "max_running": "default",
        "home": "environment TUNECHAT_HOME",
    }


def test_config_file_is_looked_for_in_home_then_in_the_platform_folder(home: Path) -> None:
    assert config_path({"TUNECHAT_HOME": str(home)}) == home / "config.toml"
    assert config_path({}).parts[-2:] == ("tunechat", "config.toml")


def test_every_setting_has_an_origin_and_a_description(home: Path) -> None:
    assert set(load({}, environ(home)).origins) == set(Settings.model_fields)
    assert all(field.description and field.description.endswith(".") for field in Settings.model_fields.values())


def test_every_number_is_bounded() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float):
            assert {"ge", "le"} <= {key for item in field.metadata for key in ("ge", "le") if hasattr(item, key)}, name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("prot = 1", "unknown setting 'prot'; did you mean port?"),
        ("Max_Context = 1", "did you mean max_context?"),
        ("zzz = 1", "`tunechat config show` lists all"),
        ("port = ", "is not TOML"),
        ("port = true", "port: should be a whole number, not a truth value"),
        ("port = 80.5", "port: should be a whole number"),
        ("port = 65536", "port: should be less than or equal to 65535"),
        ("port = -1", "port: should be greater than or equal to 0"),
        ("send_timeout = nan", "send_timeout: should be a finite number"),
        ("send_timeout = inf", "send_timeout: should be a finite number"),
        ("send_timeout = true", "send_timeout: should be a number, not a truth value"),
        ('quant = "int5"', "quant: should be 'auto', 'int4', 'nf4' or 'none'"),
        ('url = "file:///etc/passwd"', "url: a server URL looks like"),
        ("[server]\nport = 1", "unknown setting 'server'"),
    ],
)
def test_wrong_file_is_one_line_that_names_it(home: Path, text: str, hint: str) -> None:
    path = write_config(home, text)
    message = failure(env=environ(home))
    assert hint in message.replace(f" in {path}", "")
    assert str(path) in message


def test_unreadable_file_is_an_error(home: Path) -> None:
    (home / "config.toml").mkdir(parents=True)
    assert "cannot read" in failure(env=environ(home))


def test_unknown_variable_is_an_error_with_a_suggestion() -> None:
    assert failure(env={"TUNECHAT_PROT": "1"}) == (
        "unknown environment variable TUNECHAT_PROT; did you mean TUNECHAT_PORT?"
    )
    assert "TUNECHAT_ZZZ" in failure(env={"TUNECHAT_ZZZ": ""})


def test_empty_variable_counts_as_unset(home: Path) -> None:
    assert load({}, environ(home, port=" ")).origins["port"] == "default"


def test_two_problems_are_told_in_one_line() -> None:
    assert failure({"port": "x", "quant": "q"}).count("(from flag --") == 2


@pytest.mark.parametrize("key", ["short", "has a space in it", "ключ-ключ-ключ", "x" * 513, "tab\tinside-it"])
def test_unusable_key_is_refused_and_never_repeated(key: str) -> None:
    message = failure({"api_keys": [key]})
    assert key not in message


def test_keys_are_hidden_in_every_text(home: Path) -> None:
    policies = '{"first-secret": ["now=never"], "second-secret": []}'
    variables = environ(home, api_keys="first-secret, second-secret", tool_policies=policies)
    settings = load({"api_keys": None}, variables).settings
    assert settings.plain_api_keys == ("first-secret", "second-secret")
    assert settings.plain_tool_policies == {"first-secret": ("now=never",), "second-secret": ()}
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "secret" not in text.replace("SecretStr", "")


@pytest.mark.parametrize("value", ["a-secret-key=never", "[]", '{"a-secret-key": 1}', '{"a-secret-key": {}}', "{"])
def test_policies_that_are_no_table_are_refused_and_never_repeated(value: str) -> None:
    message = failure({"tool_policies": value})
    assert message.startswith("tool_policies: ") and "secret" not in message


def test_settings_are_frozen(home: Path) -> None:
    with pytest.raises(ValidationError):
        load({}, environ(home)).settings.port = 1


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": 9}, "http://127.0.0.1:9"),
        ({"host": "::"}, "http://[::1]:8000"),
        ({"url": "https://example.com/base/v1/"}, "https://example.com/base"),
        ({"url": "http://example.com/"}, "http://example.com"),
    ],
)
def test_server_url(fields: dict[str, object], url: str) -> None:
    assert Settings.model_validate(fields).server_url == url
