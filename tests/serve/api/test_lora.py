"""vLLM's two routes: its bodies, its answers, and which folders they may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.adapter_files import ask, write_adapter
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import LEAKS

KEY = "a-key-of-clients"


async def load(served: Served, name: str, path: object, **fields: Any) -> Any:
    body = {"lora_name": name, "lora_path": str(path)} | fields
    return await served.client.post("/v1/load_lora_adapter", json=body)


async def unload(served: Served, **fields: Any) -> Any:
    return await served.client.post("/v1/unload_lora_adapter", json=fields)


async def test_load_ask_unload(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "store")
    folder = write_adapter(tmp_path / "support")
    response = await load(served, "support", folder)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.splitlines()[0] == "Success: LoRA adapter 'support' added successfully."
    assert response.headers["x-tunechat-adapter"] == "support@1"
    assert (await ask(served, "support")).json()["model"] == "support@1"
    again = await load(served, "support", folder)
    assert again.status_code == 400
    assert "has already been loaded" in again.json()["error"]["message"]
    write_adapter(folder, 2)
    replaced = await load(served, "support", folder, load_inplace=True)
    assert replaced.headers["x-tunechat-adapter"] == "support@2"
    gone = await unload(served, lora_name="support", lora_int_id=7)
    assert gone.text == "Success: LoRA adapter 'support' removed successfully."
    assert (await unload(served, lora_name="support")).status_code == 404
    assert (await load(served, "support", folder)).headers["x-tunechat-adapter"] == "support@2"


@pytest.mark.parametrize(
    "body", [{}, {"lora_name": "x"}, {"lora_path": "/x"}, {"lora_name": "", "lora_path": ""}, {"lora_name": 3}, [], 1]
)
async def test_bodies_that_are_none(serve: Serve, tmp_path: Path, body: Any) -> None:
    served = await serve(adapter_store=tmp_path)
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        response = await served.client.post(path, json=body)
        assert response.status_code in {400, 404}
        assert response.json()["error"]["message"]


async def test_special_names_are_warned_of(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "store")
    response = await load(served, "my-codex", write_adapter(tmp_path / "x"))
    assert "codex" in response.text.splitlines()[-1]
    assert (await load(served, "tiny", tmp_path / "x")).status_code == 400


@pytest.mark.parametrize("path", ["support", "./support", "org/name", "~/x", "/a/../b", "/\0", "s3://bucket/x", ""])
async def test_what_is_no_path_of_a_folder(serve: Serve, tmp_path: Path, path: str) -> None:
    served = await serve(adapter_store=tmp_path)
    assert (await load(served, "x", path)).status_code == 400


async def test_folders_that_are_not_there_or_no_adapter(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "store")
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("nothing", "file", "loop", "n" * 300):
        assert (await load(served, "x", tmp_path / name)).status_code == 404, name
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "adapter_config.json").write_text("{}")
    (tmp_path / "pickled" / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    for name in ("empty", "pickled"):
        response = await load(served, "x", tmp_path / name)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "unsupported_format")
        assert not LEAKS.search(response.content)


async def test_only_folders_below_the_roots(serve: Serve, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "rooted"
    write_adapter(root / "in")
    write_adapter(outside / "x")
    (root / "link").symlink_to(outside / "x")
    served = await serve(adapter_store=tmp_path / "store", adapter_paths=(root,), api_keys=(KEY,), headers=bearer())
    assert (await load(served, "a", root / "in")).status_code == 200
    for path in (outside / "x", outside, root / "link", "/", "/etc", outside / "nothing"):
        response = await load(served, "b", path)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "path_not_allowed"), path
    assert (await load(served, "b", root / "nothing")).status_code == 404


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "settings", [{"api_keys": (KEY,)}, {"admin_keys": (KEY,)}, {"api_keys": (KEY,), "host": "0.0.0.0"}]
)
async def test_without_roots_a_server_with_keys_reads_no_folder(
    serve: Serve, tmp_path: Path, settings: dict[str, Any]
) -> None:
    served = await serve(adapter_store=tmp_path / "store", headers=bearer(), **settings)
    response = await load(served, "a", write_adapter(tmp_path / "x"))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "path_not_allowed")
