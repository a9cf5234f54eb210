"""Lists in pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.responses.paging import page


@given(st.integers(0, 30), st.integers(1, 100), st.sampled_from(["asc", "desc"]))
def test_the_pages_together_are_the_list(count: int, limit: int, order: str) -> None:
    items = [{"id": str(number)} for number in range(count)]
    seen: list[str] = []
    query = {"limit": str(limit), "order": order}
    while True:
        got = page(items, query)
        ids = [item["id"] for item in got["data"]]
        assert len(ids) <= limit
        assert [got["first_id"], got["last_id"]] == ([ids[0], ids[-1]] if ids else [None, None])
        seen += ids
        if not got["has_more"]:
            break
        query["after"] = ids[-1]
    assert seen == [item["id"] for item in (items if order == "asc" else reversed(items))]
