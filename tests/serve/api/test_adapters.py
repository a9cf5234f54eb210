"""The routes of adapters, end to end on a scripted engine: load, ask, move, unload, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunechat.tests.serve.api.adapter_files import adapter_files, zipped
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import chat

ZIP = {"content-type": "application/zip"}


async def upload(served: Served, name: str, seed: int = 1, query: str = "", **config: Any) -> Any:
    content = zipped(adapter_files(seed, **config))
    return await served.client.post(f"/v1/adapters/{name}{query}", content=content, headers=ZIP)


async def ask(served: Served, model: str, **fields: Any) -> Any:
    return await served.client.post("/v1/chat/completions", json=chat() | {"model": model} | fields)


async def test_an_adapter_is_uploaded_asked_and_unloaded(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "adapters")
    response = await upload(served, "support")
    assert response.status_code == 200, response.text
    version = response.json()
    assert (version["id"], version["state"], version["is_current"]) == ("support@1", "loaded", True)
    assert "cannot be checked" in version["warnings"][0]
    for model in ("support", "support@1"):
        answer = await ask(served, model)
        assert answer.status_code == 200
        assert answer.json()["model"] == "support@1"
        assert answer.json()["system_fingerprint"] == f"fp_0123456789ab_{version['digest'][:12]}"
        assert answer.headers["x-tunechat-adapter"] == "support@1"
    assert served.engine.uses == [served.engine.uses[0]] * 2
    assert served.engine.uses[0][0].digest == version["digest"]
    assert (await served.client.post("/v1/adapters/support/unload")).json()["draining"] == []
    assert (await ask(served, "support")).status_code == 404
    assert served.engine.removed == [version["digest"]]
