"""The list of models, and one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai.types import Model

from tunechat.tests.serve.api.adapter_files import upload
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, MODEL


async def test_the_served_model_is_listed(serve: Serve) -> None:
    served = await serve()
    listing = (await served.client.get("/v1/models")).json()
    assert listing["object"] == "list"
    (entry,) = listing["data"]
    Model.model_validate(entry)
    assert entry["id"] == MODEL
    assert entry["max_model_len"] == CONTEXT
    assert (await served.client.get(f"/v1/models/{MODEL}")).json() == entry


async def test_an_alias_with_slashes_is_found(serve: Serve) -> None:
    served = await serve(model_aliases=("org/some-model",))
    for path in ("/v1/models/org/some-model", "/v1/models/org%2Fsome-model"):
        assert (await served.client.get(path)).json()["id"] == MODEL


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e%2fetc", "tiny%00", "x" * 300])
async def test_others_are_not_found(serve: Serve, name: str) -> None:
    served = await serve()
    response = await served.client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_adapters_and_their_versions_are_listed(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    digests = [(await upload(served, "support", seed)).json()["digest"] for seed in (1, 2)]
    await upload(served, "other", 3, query="?activate=false")
    listing = (await served.client.get("/v1/models")).json()["data"]
    assert [entry["id"] for entry in listing] == [MODEL, "other@1", "support", "support@2", "support@1"]
    for entry in listing:
        Model.model_validate(entry)
        assert (await served.client.get(f"/v1/models/{entry['id']}")).json() == entry
    base, _, support, newest, oldest = listing
    assert (base["parent"], base["root"], base["state"]) == (None, MODEL, "loaded")
    assert {entry["parent"] for entry in listing[1:]} == {MODEL}
    assert support["root"] == newest["root"] == "support@2"
    assert [oldest["digest"], newest["digest"]] == digests
    assert support["max_model_len"] == CONTEXT
    assert str(tmp_path) not in str(listing)
    await served.client.post("/v1/adapters/support@1/unload")
    assert (await served.client.get("/v1/models/support@1")).status_code == 404
    assert len((await served.client.get("/v1/models")).json()["data"]) == 4
