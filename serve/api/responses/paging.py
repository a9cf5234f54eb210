"""Lists in pages, as OpenAI's `after`, `limit` and `order` ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...contract.errors import InvalidRequest

_MOST = 100
_USUAL = 20
_ORDERS = ("asc", "desc")

PAGING: list[dict[str, Any]] = [
    {"name": "after", "in": "query", "required": False, "schema": {"type": "string"}},
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
    },
    {
        "name": "order",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": list(_ORDERS), "default": "desc"},
    },
]


def page(items: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """The page of `items`, oldest first, that `query` asks for. Raises InvalidRequest with the parameter."""
    order, limit, after = query.get("order", "desc"), query.get("limit", str(_USUAL)), query.get("after")
    if order not in _ORDERS:
        raise InvalidRequest("'order' is asc or desc.", param="order", code="invalid_value")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= _MOST):
        raise InvalidRequest(f"'limit' is a number from 1 to {_MOST}.", param="limit", code="invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after is not None:
        start = next((index + 1 for index, item in enumerate(ordered) if item["id"] == after), 0)
        if not start:
            raise InvalidRequest("There is no item of this id in the list.", param="after", code="invalid_value")
    data = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + len(data) < len(ordered),
    }
