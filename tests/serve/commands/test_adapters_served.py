"""The adapter commands beside a real server with a tiny model: what they do takes effect at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tunechat.tests.blackbox.server import serving

from .adapter_home import Workshop, prepared
from .conftest import Done


def test_commands_take_effect_at_once(
    tunechat: Callable[..., Done], workshop: Workshop, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = workshop.base()
    prepared(base, home)
    one, two = (workshop.adapter(base, seed=seed) for seed in (1, 2))
    with serving(home, tmp_path / "server.log", model=base, quant="int4") as server:
        monkeypatch.setenv("TUNECHAT_PORT", server.url.rpartition(":")[2])

        def run(*arguments: str, code: int = 0) -> Done:
            done = tunechat(*arguments)
            assert done.code == code, done.err
            return done

        def answered_by(model: str) -> str:
            body = {"model": model, "prompt": "abc", "max_tokens": 1}
            answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60, trust_env=False).json()
            return str(answer["model"] if "model" in answer else answer["error"]["code"])

        assert "support@1 (current, loaded" in run("adapters", "load", str(one), "--name", "support").out
        assert "support@2 (current, loaded" in run("adapters", "load", str(two), "--name", "support").out
        assert answered_by("support") == "support@2"
        run("adapters", "pin", "support@2")
        status = json.loads(run("ps", "--json", "--interval", "0.1").out)
        mine = next(adapter for adapter in status["adapters"] if adapter["id"] == "support@2")
        assert (mine["residency"], mine["is_pinned"]) == ("device", True) and mine["memory_bytes"] > 0
        assert "slot" in run("ps", "--interval", "0.1").out
        run("adapters", "rollback", "support")
        assert answered_by("support") == "support@1"
        run("adapters", "export", "support@2", str(tmp_path / "out.zip"))
        copied = json.loads(run("adapters", "load", str(tmp_path / "out.zip"), "--name", "copy", "--json").out)
        assert copied["digest"] == json.loads(run("adapters", "show", "support@2", "--json").out)["digest"]
        run("adapters", "unload", "support")
        assert answered_by("support") == "model_not_found"
        assert "copy" in run("adapters", "list").out
        assert server.end() == 0
    told = json.loads(run("adapters", "activate", "support@2", "--json").out)  # the store goes on without the server
    assert (told["state"], told["is_current"], told["is_pinned"]) == ("stored", True, True)
    assert "Traceback" not in (tmp_path / "server.log").read_text()
