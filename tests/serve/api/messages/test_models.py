"""Anthropic's clients list models in their own shape; all others get OpenAI's."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.messages.models import model_info, model_page
from tunechat.serve.contract.errors import InvalidRequest
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, MODEL
from tunechat.tests.serve.api.messages.conftest import Connect


async def test_the_client_lists_the_model_and_its_aliases(serve: Serve, connect: Connect) -> None:
    client = connect(await serve(model_aliases=("claude-local",)))
    models = [model async for model in client.models.list(limit=1)]
    assert [model.id for model in models] == [MODEL, "claude-local"]
    one = await client.models.retrieve("claude-local")
    assert (one.id, one.type, one.max_input_tokens) == (MODEL, "model", CONTEXT)
    assert one.created_at.tzinfo is not None
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await client.models.retrieve("claude-other")
    assert unknown.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        await client.models.list(after_id="nothing")


async def test_without_the_header_the_list_is_openais(serve: Serve) -> None:
    served = await serve()
    plain = (await served.client.get("/v1/models")).json()
    assert plain["object"] == "list"
    theirs = (await served.client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
    assert set(theirs) == {"data", "has_more", "first_id", "last_id"}


ENTRIES: list[dict[str, Any]] = [{"id": f"m{index}", "created": index, "max_model_len": 8} for index in range(7)]


def test_an_entry_is_of_the_clients_type() -> None:
    info = ModelInfo.model_validate(model_info(ENTRIES[3]))
    assert (info.id, info.display_name, info.created_at.timestamp()) == ("m3", "m3", 3)
    assert model_info({"id": "m", "created": 0})["max_tokens"] is None


@given(limit=st.integers(1, 9))
def test_pages_forwards_and_backwards_have_every_model_once(limit: int) -> None:
    ids = [entry["id"] for entry in ENTRIES]
    for field, cursor in (("after_id", "last_id"), ("before_id", "first_id")):
        seen: list[list[str]] = []
        query = {"limit": str(limit)}
        if field == "before_id":
            query[field] = ids[-1]
        while True:
            page = model_page(ENTRIES, query)
            assert len(page["data"]) <= limit
            seen.append([one["id"] for one in page["data"]])
            if not page["has_more"]:
                break
            query[field] = page[cursor]
        if field == "before_id":
            assert [id_ for page_ids in reversed(seen) for id_ in page_ids] == ids[:-1]
        else:
            assert [id_ for page_ids in seen for id_ in page_ids] == ids


def test_no_models_make_an_empty_page() -> None:
    assert model_page([], {}) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"limit": "²"}, {"before_id": "m9"}]
)
def test_other_pages_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model_page(ENTRIES, query)
    assert refused.value.param in query
