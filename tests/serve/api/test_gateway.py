"""What routes share: loading, names, salts, and work that must not stand on the event loop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.api.app import create_app
from tunechat.serve.api.gateway import prefix_salt
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine, chat, completion


async def test_text_files_that_cannot_be_read_end_the_server(text: ModelText, tmp_path: Path) -> None:
    app = create_app(ScriptedEngine(text=text, entry=tmp_path), ApiSettings(model=MODEL))
    async with app.router.lifespan_context(app):
        await app.state.gateway.settled.wait()
        assert app.state.gateway.failure.code == "model_error"
        assert not app.state.gateway.is_ready


async def test_the_engine_is_started_and_closed_with_the_application(text: ModelText, entry: Path) -> None:
    engine = ScriptedEngine(text=text, entry=entry)
    app = create_app(engine, ApiSettings(model=MODEL))
    assert engine.state == "new"
    async with app.router.lifespan_context(app):
        await app.state.gateway.settled.wait()
        assert app.state.gateway.is_ready
    assert engine.state == "closed"


async def test_a_start_that_is_interrupted_closes_the_engine(text: ModelText, entry: Path) -> None:
    import asyncio

    engine = ScriptedEngine(text=text, entry=entry, load=asyncio.Event())
    app = create_app(engine, ApiSettings(model=MODEL))
    async with app.router.lifespan_context(app):
        assert not app.state.gateway.is_ready
    assert engine.state == "closed"


def test_salts_part_tenants_and_their_own_salts() -> None:
    salts = [prefix_salt(tenant, salt) for tenant in ("", "a", "b") for salt in (None, "x", "y")]
    assert salts[0] == ""
    assert len(set(salts)) == len(salts)
    assert prefix_salt("a", "") == prefix_salt("a", None)
    assert prefix_salt("a", "bc") != prefix_salt("ab", "c")


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/v1/chat/completions", chat(), "encode_chat"),
        ("/v1/completions", completion(), "encode"),
        ("/tokenize", {"prompt": "x"}, "encode"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}]}, "encode_chat"),
        ("/detokenize", {"tokens": [1]}, "decode"),
    ],
)
async def test_text_work_is_off_the_event_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, method: str
) -> None:
    served = await serve()
    text: Any = served.gateway.text
    threads: list[int] = []
    original = getattr(text, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.get_ident())
        return original(*args, **kwargs)

    monkeypatch.setattr(text, method, watched)
    assert (await served.client.post(path, json=body)).status_code == 200
    assert threads
    assert threading.get_ident() not in threads
