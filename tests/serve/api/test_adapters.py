"""The routes of adapters, end to end on a scripted engine: upload, ask, move, unload, remove."""

from __future__ import annotations

import asyncio
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.contract.errors import AdapterCapacity, InvalidAdapter
from tunechat.serve.contract.messages import AdapterResidency, EngineStats
from tunechat.tests.serve.api.adapter_files import CONFIG, WEIGHTS, adapter_files, ask, upload, zipped
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import events_of


@pytest.fixture
async def served(serve: Serve, tmp_path: Path) -> Served:
    return await serve(adapter_store=tmp_path / "adapters")


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def post(served: Served, path: str) -> Any:
    return await served.client.post(f"/v1/adapters/{path}")


async def test_an_adapter_is_uploaded_asked_and_unloaded(served: Served) -> None:
    version = (await upload(served, "support")).json()
    assert (version["id"], version["state"], version["is_current"]) == ("support@1", "loaded", True)
    assert (version["variant"], version["rank"], version["targets"]) == ("lora", 2, ["q_proj", "v_proj"])
    assert "cannot be checked" in version["warnings"][0]
    for model in ("support", "support@1"):
        answer = await ask(served, model)
        assert answer.json()["model"] == "support@1"
        assert answer.json()["system_fingerprint"] == f"fp_0123456789ab_{version['digest'][:12]}"
        assert answer.headers["x-tunechat-adapter"] == "support@1"
    assert [[use.digest for use in uses] for uses in served.engine.uses] == [[version["digest"]]] * 2
    assert (await post(served, "support/unload")).json()["draining"] == []
    assert (await ask(served, "support")).status_code == 404
    assert served.engine.removed == [version["digest"]]


async def test_streams_and_completions_say_which_weights_answer(served: Served) -> None:
    await upload(served, "support")
    stream = await ask(served, "support", stream=True)
    assert stream.headers["x-tunechat-adapter"] == "support@1"
    assert {event["model"] for event in events_of(stream.content)[:-1]} == {"support@1"}
    response = await served.client.post("/v1/completions", json={"model": "support@1", "prompt": "x"})
    assert response.json()["model"] == response.headers["x-tunechat-adapter"] == "support@1"
    base = await ask(served, "tiny")
    assert "x-tunechat-adapter" not in base.headers
    assert base.json()["system_fingerprint"] == "fp_0123456789ab"


async def test_a_form_with_the_files_is_an_upload_too(served: Served) -> None:
    files = {f"part{index}": (name, content) for index, (name, content) in enumerate(adapter_files().items())}
    response = await served.client.post("/v1/adapters/support", files=files)
    assert response.json()["id"] == "support@1"
    again = await served.client.post("/v1/adapters/other", files={"file": ("x.zip", zipped(adapter_files()))})
    assert again.json()["id"] == "other@1"
    assert again.json()["digest"] == response.json()["digest"]


async def test_nothing_of_an_upload_stays_beside_the_store(served: Served, tmp_path: Path) -> None:
    await upload(served, "support")
    await served.client.post("/v1/adapters/bad", content=b"PK", headers={"content-type": "application/zip"})
    assert list((tmp_path / "adapters" / ".uploads").iterdir()) == []


async def test_versions_move_the_alias_and_stay_asked_for_by_number(served: Served) -> None:
    first, second = (await upload(served, "support", 1)).json(), (await upload(served, "support", 2)).json()
    assert (first["id"], second["id"]) == ("support@1", "support@2")
    assert (await ask(served, "support")).json()["model"] == "support@2"
    assert (await ask(served, "support@1")).json()["model"] == "support@1"
    assert (await post(served, "support/rollback")).json()["id"] == "support@1"
    assert (await ask(served, "support")).json()["model"] == "support@1"
    assert (await post(served, "support/rollback")).status_code == 409
    assert (await post(served, "support@2/activate")).json()["is_current"]
    assert (await ask(served, "support")).json()["model"] == "support@2"
    assert (await post(served, "support/activate")).status_code == 400
    assert (await post(served, "support@9/activate")).status_code == 404


async def test_a_version_that_is_not_activated_is_asked_for_by_number_only(served: Served) -> None:
    await upload(served, "support", 1)
    version = (await upload(served, "support", 2, query="?activate=false")).json()
    assert (version["state"], version["is_current"]) == ("loaded", False)
    assert (await ask(served, "support")).json()["model"] == "support@1"
    assert (await ask(served, "support@2")).json()["model"] == "support@2"
    assert (await upload(served, "support", 3, query="?activate=maybe")).status_code == 400


async def test_the_same_content_is_the_same_version(served: Served) -> None:
    await upload(served, "support", 1)
    await upload(served, "support", 2)
    assert (await upload(served, "support", 1)).json()["id"] == "support@1"
    assert (await ask(served, "support")).json()["model"] == "support@1"


async def test_unload_is_undone_by_load_and_by_a_restart(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    await upload(served, "support", 1)
    await upload(served, "support", 2)
    assert (await post(served, "support/unload")).status_code == 200
    assert (await post(served, "support/unload")).status_code == 404
    assert {(await ask(served, model)).status_code for model in ("support", "support@1", "support@2")} == {404}
    assert (await post(served, "support@1/load")).json()["state"] == "loaded"
    assert [(await ask(served, model)).status_code for model in ("support", "support@1")] == [404, 200]
    assert (await post(served, "support/load")).json()["id"] == "support@2"
    assert [(await ask(served, m)).status_code for m in ("support", "support@1", "support@2")] == [200] * 3
    await post(served, "support/unload")
    again = await serve(adapter_store=tmp_path)
    assert (await ask(again, "support")).json()["model"] == "support@2"
    assert again.engine.loads == []


async def test_running_requests_keep_their_version(serve: Serve, tmp_path: Path) -> None:
    gate = asyncio.Event()
    served = await serve({"gates": {3: gate}}, adapter_store=tmp_path)
    old = (await upload(served, "support", 1)).json()
    running = asyncio.create_task(ask(served, "support", n=2))
    await served.engine.until_waiting(2)
    await upload(served, "support", 2)
    assert (await post(served, "support/unload")).json()["draining"] == ["support@1"]
    assert (await ask(served, "support")).status_code == 404
    shown = (await served.client.get("/v1/adapters/support@1")).json()
    assert (shown["state"], shown["requests"]) == ("draining", 1)
    assert old["digest"] not in served.engine.removed
    assert (await served.client.delete("/v1/adapters/support")).status_code == 409
    gate.set()
    answer = (await running).json()
    assert answer["model"] == "support@1"
    assert len(answer["choices"]) == 2
    assert old["digest"] in served.engine.removed
    assert (await served.client.delete("/v1/adapters/support")).json()["removed"] == ["support@1", "support@2"]


@pytest.mark.parametrize("fields", [{"max_tokens": 10_000}, {"adapters": [{"name": "support"}, {"name": "no"}]}])
async def test_requests_that_are_refused_give_their_adapter_back(served: Served, fields: dict[str, Any]) -> None:
    await upload(served, "support")
    assert (await ask(served, "support", **fields)).status_code in {400, 404}
    assert (await served.client.get("/v1/adapters/support")).json()["requests"] == 0
    assert (await post(served, "support/unload")).json()["draining"] == []


async def test_what_the_engine_refuses_leaves_everything_as_it_was(served: Served) -> None:
    first = (await upload(served, "support", 1)).json()
    served.engine.load_fault = InvalidAdapter("the device does not take it")
    assert (await upload(served, "support", 2)).status_code == 422
    assert (await upload(served, "other", 3)).status_code == 422
    shown = (await served.client.get("/v1/adapters/support")).json()
    assert [version["id"] for version in shown["versions"]] == ["support@1"]
    assert shown["current"] == 1
    assert (await served.client.get("/v1/adapters/other")).status_code == 404
    assert set(served.engine.adapters) == {first["digest"]}
    served.engine.load_fault = None
    assert (await upload(served, "support", 2)).json()["id"] == "support@3"  # numbers are not given twice


async def test_a_move_that_fails_moves_nothing(served: Served) -> None:
    await upload(served, "support", 1)
    await upload(served, "support", 2)
    served.engine.load_fault = AdapterCapacity("no room")
    for move in ("support/rollback", "support@1/activate"):
        assert (await post(served, move)).status_code == 503
        assert (await served.client.get("/v1/adapters/support")).json()["current"] == 2
        assert (await ask(served, "support")).json()["model"] == "support@2"


async def test_pins_are_kept_and_reach_the_device(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    digest = (await upload(served, "support")).json()["digest"]
    assert (await post(served, "support/pin")).json()["is_pinned"]
    assert served.engine.pinned == {digest}
    assert (await served.client.delete("/v1/adapters/support")).status_code == 409
    again = await serve(adapter_store=tmp_path)
    assert again.engine.pinned == {digest}
    assert not (await post(again, "support@1/unpin")).json()["is_pinned"]
    assert again.engine.pinned == set()
    again.engine.pin_fault = AdapterCapacity("one slot stays free")
    assert (await post(again, "support/pin")).status_code == 503
    assert not (await again.client.get("/v1/adapters/support@1")).json()["is_pinned"]


async def test_verify_finds_what_was_changed_on_disk(served: Served, tmp_path: Path) -> None:
    await upload(served, "support")
    assert (await post(served, "support/verify")).json()["verified"] is True
    weights = tmp_path / "adapters" / "support" / "1" / WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(b"x")
    response = await post(served, "support/verify")
    assert response.status_code == 422
    assert WEIGHTS in response.json()["error"]["message"]


async def test_a_download_is_an_upload(served: Served) -> None:
    first = (await upload(served, "support")).json()
    response = await served.client.get("/v1/adapters/support/download")
    assert response.headers["content-disposition"] == 'attachment; filename="support@1.zip"'
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {CONFIG, WEIGHTS, "manifest.json"}
    headers = {"content-type": "application/zip"}
    again = await served.client.post("/v1/adapters/copy", content=response.content, headers=headers)
    assert again.json()["digest"] == first["digest"]


async def test_removal(served: Served) -> None:
    await upload(served, "support", 1)
    await upload(served, "support", 2)
    current = await served.client.delete("/v1/adapters/support@2")
    assert current.status_code == 409
    assert (await ask(served, "support")).json()["model"] == "support@2"
    assert (await ask(served, "support@2")).status_code == 200
    gone = await served.client.delete("/v1/adapters/support@1")
    assert gone.json() == {"object": "adapter.deleted", "id": "support@1", "deleted": True, "removed": ["support@1"]}
    assert (await ask(served, "support@1")).status_code == 404
    assert (await served.client.delete("/v1/adapters/support")).json()["removed"] == ["support@2"]
    assert (await served.client.get("/v1/adapters")).json()["data"] == []
    assert served.engine.adapters == {}


async def test_weights_with_two_names_outlive_one_of_them(served: Served, tmp_path: Path) -> None:
    digest = (await upload(served, "one")).json()["digest"]
    await upload(served, "two")
    await served.client.delete("/v1/adapters/one")
    assert served.engine.adapters == {digest: tmp_path / "adapters" / "two" / "1"}
    assert (await ask(served, "two")).status_code == 200
    await served.client.delete("/v1/adapters/two")
    assert served.engine.removed == [digest]


async def test_the_list_tells_where_everything_is(served: Served) -> None:
    digest = (await upload(served, "support")).json()["digest"]
    await upload(served, "gpt-oss-helpdesk", 2)
    served.engine.stats = EngineStats(adapters=[AdapterResidency(digest=digest, bytes=77, slot=1, running=2)])
    listing = (await served.client.get("/v1/adapters")).json()
    assert [one["id"] for one in listing["data"]] == ["gpt-oss-helpdesk", "support"]
    assert listing["quarantined"] == []
    special, support = listing["data"]
    assert any("OpenAI" in warning for warning in special["warnings"])
    (version,) = support["versions"]
    assert (version["residency"], version["memory_bytes"], version["running"]) == ("device", 77, 2)
    assert special["versions"][0]["residency"] == "disk"


@pytest.mark.parametrize("name", ["tiny", "TINY", "nick"])
async def test_the_names_of_the_base_are_taken(serve: Serve, tmp_path: Path, name: str) -> None:
    served = await serve(adapter_store=tmp_path, model_aliases=("nick",))
    response = await upload(served, name)
    assert response.status_code == 400
    assert "base model" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "name",
    [
        "..", "%2e", "%2e%2e", "%2e%2e%2fx", "%2Fetc", "a%2Fb", "a%00", "a" * 300, "s%D1%83pport", "-x", "a@", "a@0",
        "a@b", "a%0A",
    ],
)  # fmt: skip
async def test_names_are_never_paths(served: Served, tmp_path: Path, name: str) -> None:
    before = files_below(tmp_path)
    for method, action in (
        ("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/download"), ("POST", "/load"), ("POST", "/unload"),
        ("POST", "/rollback"), ("POST", "/activate"), ("POST", "/pin"), ("POST", "/unpin"), ("POST", "/verify"),
    ):  # fmt: skip
        content = zipped(adapter_files()) if (method, action) == ("POST", "") else None
        response = await served.client.request(
            method, f"/v1/adapters/{name}{action}", content=content, headers={"content-type": "application/zip"}
        )
        assert response.status_code in {400, 404, 405}, (method, action, response.text)
        assert (await ask(served, name)).status_code == 404
    assert files_below(tmp_path) == before


async def test_links_in_the_store_are_not_followed(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "adapters")
    await upload(served, "support")
    (tmp_path / "adapters" / "linked").symlink_to(tmp_path / "adapters" / "support")
    for method, action in (("GET", ""), ("POST", "/load"), ("GET", "/download"), ("DELETE", "")):
        assert (await served.client.request(method, f"/v1/adapters/linked{action}")).status_code == 404
    again = await serve(adapter_store=tmp_path / "adapters")
    assert (await ask(again, "linked")).status_code == 404


async def test_a_server_without_a_store_says_so(serve: Serve) -> None:
    served = await serve()
    response = await served.client.get("/v1/adapters")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported")
    assert (await ask(served, "support")).status_code == 404


async def test_before_the_base_is_known_nothing_changes_and_nothing_is_missing(serve: Serve, tmp_path: Path) -> None:
    load = asyncio.Event()
    served = await serve({"load": load}, adapter_store=tmp_path)
    for response in (await upload(served, "support"), await ask(served, "support"), await post(served, "support/load")):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "model_loading"
    load.set()
